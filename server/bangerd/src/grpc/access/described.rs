//! What the descriptors of what is served say of a method: how it is asked, and where in a request the few fields are
//! that the audit log keeps. These are read of the request as it is decoded, whole and by the same rules as for the
//! handler: what the log has is what was done, however the caller's bytes are put together.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, MethodDescriptor, Value,
};

use super::table::{Effect, RPCS, Rpc, Sends};

/// The most bytes of a value that are kept.
const VALUE_MAX: usize = 256;
/// Where request ids are.
const REQUEST_IDS: [&str; 2] = ["request_id", "start.request_id"];

/// What is known of a method.
#[derive(Debug)]
pub(super) struct Described {
    /// How it is asked.
    pub(super) sends: Sends,
    input: MessageDescriptor,
    /// What the call is about, from the outside in; empty for nothing.
    object: Vec<FieldDescriptor>,
    /// Its request id; empty where it has none.
    request_id: Vec<FieldDescriptor>,
    /// Whether it changes anything, where that is for the request to say.
    changes: Vec<FieldDescriptor>,
}

/// What is kept of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) object: String,
    pub(super) request_id: String,
    /// Whether it asks for a change.
    pub(super) changes: bool,
}

static ALL: LazyLock<HashMap<&'static str, Described>> = LazyLock::new(|| {
    let pool = pool();
    let described = |rpc: &'static Rpc| Some((rpc.path, Described::new(&pool, rpc)?));
    RPCS.iter().filter_map(described).collect()
});

/// Does what the first call would wait for: reading the descriptors takes some ten milliseconds. Blocks.
pub(crate) fn warm_up() {
    LazyLock::force(&ALL);
}

/// What is known of a method of the table.
pub(super) fn of(rpc: &Rpc) -> Option<&'static Described> {
    ALL.get(rpc.path)
}

/// All that is served. A set that does not fit is missing, which a test would tell.
fn pool() -> DescriptorPool {
    let mut pool = DescriptorPool::new();
    for set in [
        banger_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        let _ = pool.decode_file_descriptor_set(set);
    }
    pool
}

fn method(pool: &DescriptorPool, path: &str) -> Option<MethodDescriptor> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    let service = pool.get_service_by_name(service)?;
    service.methods().find(|method| method.name() == name)
}

impl Described {
    fn new(pool: &DescriptorPool, rpc: &Rpc) -> Option<Self> {
        let method = method(pool, rpc.path)?;
        let input = method.input();
        let request_id = REQUEST_IDS.iter().map(|path| fields(&input, path));
        Some(Self {
            sends: match method.is_client_streaming() {
                true => Sends::Many,
                false => Sends::One,
            },
            object: fields(&input, rpc.object),
            request_id: request_id.max_by_key(Vec::len).unwrap_or_default(),
            changes: match rpc.effect {
                Effect::ChangesIf(field) => fields(&input, field),
                Effect::Reads | Effect::Changes => Vec::new(),
            },
            input,
        })
    }

    /// What is kept of a message; nothing of what is none.
    pub(super) fn facts(&self, message: &[u8]) -> Facts {
        let Ok(message) = DynamicMessage::decode(self.input.clone(), message) else {
            return Facts::default();
        };
        Facts {
            object: text(&message, &self.object),
            request_id: text(&message, &self.request_id),
            changes: matches!(value(&message, &self.changes), Some(Value::Bool(true))),
        }
    }
}

/// The fields of a path, by names from the outside in; none where it leads nowhere.
fn fields(message: &MessageDescriptor, path: &str) -> Vec<FieldDescriptor> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let Some(field) = message.get_field_by_name(first) else {
        return Vec::new();
    };
    if rest.is_empty() {
        return vec![field];
    }
    let kind = field.kind();
    let inner = kind.as_message().map(|inner| fields(inner, rest));
    match inner {
        Some(inner) if !inner.is_empty() => [vec![field], inner].concat(),
        _ => Vec::new(),
    }
}

fn value(message: &DynamicMessage, path: &[FieldDescriptor]) -> Option<Value> {
    let (first, rest) = path.split_first()?;
    if !message.has_field(first) {
        return None;
    }
    let found = message.get_field(first);
    match rest {
        [] => Some(found.into_owned()),
        rest => value(found.as_message()?, rest),
    }
}

fn text(message: &DynamicMessage, path: &[FieldDescriptor]) -> String {
    match value(message, path) {
        Some(Value::String(mut text)) => {
            text.truncate(text.floor_char_boundary(VALUE_MAX));
            text
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use banger_proto::v1;
    use prost::Message;

    use super::super::table;
    use super::*;

    fn described(path: &str) -> &'static Described {
        of(table::find(path).unwrap()).unwrap()
    }

    fn read(path: &str, message: &[u8]) -> (String, String) {
        let facts = described(path).facts(message);
        (facts.object, facts.request_id)
    }

    #[test]
    fn every_method_is_described_and_every_field_of_the_table_found() {
        for rpc in RPCS {
            let described = of(rpc).unwrap_or_else(|| panic!("{} is not described", rpc.path));
            let depth = rpc.object.split('.').filter(|name| !name.is_empty());
            assert_eq!(described.object.len(), depth.count(), "{}", rpc.path);
            let asks = matches!(rpc.effect, Effect::ChangesIf(_));
            assert_eq!(!described.changes.is_empty(), asks, "{}", rpc.path);
        }
    }

    #[test]
    fn what_a_call_is_about_is_read_wherever_it_is() {
        let request = v1::StopVmRequest {
            vm: "web".into(),
            request_id: "r".into(),
            ..Default::default()
        };
        let read_ = read("/banger.v1.VmService/StopVm", &request.encode_to_vec());
        assert_eq!(read_, ("web".into(), "r".into()));
        let read_ = read("/banger.v1.SessionService/Exec", &exec("web"));
        assert_eq!(read_, ("web".into(), String::new()));
    }

    fn exec(vm: &str) -> Vec<u8> {
        let start = v1::ExecStart {
            vm: vm.into(),
            spec: Some(v1::SessionSpec {
                command: vec!["secret".into()],
                ..Default::default()
            }),
        };
        let request = v1::ExecRequest {
            message: Some(v1::exec_request::Message::Start(start)),
        };
        request.encode_to_vec()
    }

    #[test]
    fn what_is_no_message_has_no_fields_and_long_values_are_cut() {
        let path = "/banger.v1.VmService/StopVm";
        let long = v1::StopVmRequest {
            vm: "é".repeat(1000),
            ..Default::default()
        };
        let bytes = long.encode_to_vec();
        assert_eq!(read(path, &bytes).0.len(), VALUE_MAX);
        for end in 1..bytes.len().min(300) {
            assert_eq!(described(path).facts(&bytes[..end]), Facts::default());
        }
        for garbage in [&[0xff; 64][..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[7]] {
            assert_eq!(described(path).facts(garbage), Facts::default());
        }
    }

    /// A field of a length, by its number.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let mut encoded = vec![number << 3 | 2];
        prost::encoding::encode_varint(value.len() as u64, &mut encoded);
        encoded.extend_from_slice(value);
        encoded
    }

    #[test]
    fn bytes_put_together_to_deceive_the_log_are_read_as_the_handler_reads_them() {
        let unknown_group = [0xfb, 0x01, 0x08, 0x05, 0xfc, 0x01];
        let stops = [
            // Another comes after more than a cursory look would take.
            [
                field(1, b"bait"),
                field(15, &[0; 1 << 17]),
                field(1, b"web"),
            ]
            .concat(),
            // A group, which nobody uses any more, and decoders still skip.
            [&field(1, b"bait")[..], &unknown_group, &field(1, b"web")].concat(),
        ];
        for bytes in stops {
            let decoded = v1::StopVmRequest::decode(bytes.as_slice()).unwrap();
            assert_eq!(decoded.vm, "web");
            assert_eq!(read("/banger.v1.VmService/StopVm", &bytes).0, "web");
        }
        // A message that comes twice is one, put together of both.
        let whole = exec("web");
        let execs = [
            [whole.clone(), field(1, &[])].concat(),
            [field(1, &field(1, b"bait")), whole].concat(),
        ];
        for bytes in execs {
            let decoded = v1::ExecRequest::decode(bytes.as_slice()).unwrap();
            let Some(v1::exec_request::Message::Start(start)) = decoded.message else {
                panic!("{decoded:?}");
            };
            assert_eq!(start.vm, "web");
            assert_eq!(read("/banger.v1.SessionService/Exec", &bytes).0, "web");
        }
    }
}
