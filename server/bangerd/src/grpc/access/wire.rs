//! The few fields of a request that the audit log keeps, read from its encoding without decoding the rest.
//!
//! What comes is whatever a caller sends: anything that does not fit is no field.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};

use super::table::{RPCS, Rpc};

/// The most bytes of a value that are kept.
const VALUE_MAX: usize = 256;

/// Where in a method's first message the fields are, as numbers from the outside in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// What the call is about; empty for nothing.
    object: Vec<u32>,
    /// Its request id; empty where it has none.
    request_id: Vec<u32>,
}

/// What is kept of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) object: String,
    pub(super) request_id: String,
}

static FIELDS: LazyLock<HashMap<&'static str, Fields>> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(banger_proto::FILE_DESCRIPTOR_SET);
    let types = Types::new(set.unwrap_or_default());
    RPCS.iter()
        .map(|rpc| (rpc.path, types.fields(rpc)))
        .collect()
});

/// The fields of a method.
pub(super) fn fields(rpc: &Rpc) -> &'static Fields {
    static NONE: Fields = Fields {
        object: Vec::new(),
        request_id: Vec::new(),
    };
    FIELDS.get(rpc.path).unwrap_or(&NONE)
}

/// All messages, and the inputs of all methods, by their full names.
struct Types {
    messages: HashMap<String, DescriptorProto>,
    inputs: HashMap<String, String>,
}

impl Types {
    fn new(set: FileDescriptorSet) -> Self {
        let (mut messages, mut inputs) = (HashMap::new(), HashMap::new());
        for file in set.file {
            let package = file.package().to_owned();
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{package}.{}/{}", service.name(), method.name());
                    inputs.insert(path, method.input_type().to_owned());
                }
            }
            for message in file.message_type {
                messages.insert(format!(".{package}.{}", message.name()), message);
            }
        }
        Self { messages, inputs }
    }

    fn fields(&self, rpc: &Rpc) -> Fields {
        let input = self.inputs.get(rpc.path).map_or("", String::as_str);
        let object = match rpc.object {
            "" => Vec::new(),
            object => self.numbers(input, object).unwrap_or_default(),
        };
        let request_id = ["request_id", "start.request_id"];
        let request_id = request_id.iter().find_map(|path| self.numbers(input, path));
        Fields {
            object,
            request_id: request_id.unwrap_or_default(),
        }
    }

    fn numbers(&self, message: &str, path: &str) -> Option<Vec<u32>> {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let message = self.messages.get(message)?;
        let field = message.field.iter().find(|field| field.name() == first)?;
        let mut numbers = vec![u32::try_from(field.number()).ok()?];
        if !rest.is_empty() {
            numbers.extend(self.numbers(field.type_name(), rest)?);
        }
        Some(numbers)
    }
}

/// Reads what is kept of `message`, which may be cut off anywhere.
pub(super) fn facts(fields: &Fields, message: &[u8]) -> Facts {
    let value = |path: &[u32]| {
        let found = if path.is_empty() {
            None
        } else {
            find(message, path)
        };
        let text = found.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let text = text.unwrap_or_default();
        text[..text.floor_char_boundary(VALUE_MAX)].to_owned()
    };
    Facts {
        object: value(&fields.object),
        request_id: value(&fields.request_id),
    }
}

/// The bytes of the last field at `path`, as decoders take it.
fn find<'m>(message: &'m [u8], path: &[u32]) -> Option<&'m [u8]> {
    let (first, rest) = path.split_first()?;
    let (mut left, mut found) = (message, None);
    while let Some((number, value)) = next(&mut left) {
        if number == u64::from(*first)
            && let Some(value) = value
        {
            found = Some(value);
        }
    }
    match rest {
        [] => found,
        rest => find(found?, rest),
    }
}

/// The next field, with its bytes where it is of those that have a length.
fn next<'m>(left: &mut &'m [u8]) -> Option<(u64, Option<&'m [u8]>)> {
    let tag = varint(left)?;
    let value = match tag & 7 {
        0 => {
            varint(left)?;
            None
        }
        1 => {
            take(left, 8)?;
            None
        }
        2 => {
            let length = usize::try_from(varint(left)?).ok()?;
            Some(take(left, length)?)
        }
        5 => {
            take(left, 4)?;
            None
        }
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn take<'m>(left: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (taken, rest) = left.split_at_checked(length)?;
    *left = rest;
    Some(taken)
}

fn varint(left: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = left.split_first()?;
        *left = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use banger_proto::v1;
    use prost::Message;

    use super::super::table;
    use super::*;

    fn read(path: &str, message: &impl Message) -> (String, String) {
        let rpc = table::find(path).unwrap();
        let Facts { object, request_id } = facts(fields(rpc), &message.encode_to_vec());
        (object, request_id)
    }

    #[test]
    fn every_object_of_the_table_is_a_field() {
        for rpc in RPCS.iter().filter(|rpc| !rpc.object.is_empty()) {
            let depth = rpc.object.split('.').count();
            assert_eq!(fields(rpc).object.len(), depth, "{}", rpc.path);
        }
    }

    #[test]
    fn what_a_call_is_about_is_read_wherever_it_is() {
        let request = v1::StopVmRequest {
            vm: "web".into(),
            request_id: "r".into(),
            keep_logs: false,
        };
        let read_ = read("/banger.v1.VmService/StopVm", &request);
        assert_eq!(read_, ("web".into(), "r".into()));
        let start = v1::ExecStart {
            vm: "web".into(),
            spec: Some(v1::SessionSpec {
                command: vec!["secret".into()],
                ..Default::default()
            }),
        };
        let request = v1::ExecRequest {
            message: Some(v1::exec_request::Message::Start(start)),
        };
        let read_ = read("/banger.v1.SessionService/Exec", &request);
        assert_eq!(read_, ("web".into(), String::new()));
    }

    #[test]
    fn what_is_no_message_has_no_fields_and_long_values_are_cut() {
        let stop = fields(table::find("/banger.v1.VmService/StopVm").unwrap());
        let long = v1::StopVmRequest {
            vm: "é".repeat(1000),
            ..Default::default()
        };
        let bytes = long.encode_to_vec();
        assert_eq!(facts(stop, &bytes).object.len(), VALUE_MAX);
        for end in 0..bytes.len().min(300) {
            let _ = facts(stop, &bytes[..end]);
        }
        for garbage in [&[0xff; 64][..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[7]] {
            assert_eq!(facts(stop, garbage), Facts::default());
        }
    }
}
