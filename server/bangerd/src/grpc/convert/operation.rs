//! Operations and stages.

use banger_core::operation::{Operation, OperationKind, OperationState, Stage};
use banger_proto::v1;

use super::field::{int, time};
use crate::grpc::status;

pub(crate) fn operation(operation: &Operation) -> v1::Operation {
    use v1::operation::State;
    let (state, error) = match &operation.state {
        OperationState::Running => (State::Running, None),
        OperationState::Succeeded => (State::Succeeded, None),
        OperationState::Failed { failure } => (State::Failed, Some(status::message(failure))),
    };
    v1::Operation {
        id: operation.id.to_string(),
        kind: kind(operation.kind).into(),
        target: operation.target.clone(),
        state: state.into(),
        stages: operation.stages.iter().map(stage).collect(),
        error,
        create_time: Some(time(operation.create_time)),
        end_time: operation.end_time.map(time),
    }
}

pub(crate) fn kind(kind: OperationKind) -> v1::operation::Kind {
    use v1::operation::Kind;
    match kind {
        OperationKind::PullImage => Kind::PullImage,
        OperationKind::RegisterImage => Kind::RegisterImage,
        OperationKind::ImportKernel => Kind::ImportKernel,
        OperationKind::CreateVm => Kind::CreateVm,
        OperationKind::StartVm => Kind::StartVm,
        OperationKind::PullKernel => Kind::PullKernel,
        OperationKind::BuildImage => Kind::BuildImage,
        OperationKind::CreateVolume => Kind::CreateVolume,
    }
}

pub(crate) fn stage(stage: &Stage) -> v1::Stage {
    v1::Stage {
        name: stage.key.name.clone(),
        item: stage.key.item.clone(),
        start_time: Some(time(stage.start_time)),
        end_time: stage.end_time.map(time),
        done_bytes: int(stage.done_bytes),
        total_bytes: stage.total_bytes.map(int),
    }
}
