//! Facts as indented lines of `key: value`, the way qemu-img shows what only one format knows.

use super::escape::Text;
use instar_wire::fact::Fact;

/// Appends the facts below a heading. Keys lose their dashes; members of a list are counted.
pub fn dump(out: &mut Vec<u8>, facts: &Fact, indent: usize, text: Text) {
    match facts {
        Fact::List(items) => {
            for (i, item) in items.iter().enumerate() {
                entry(out, format!("[{i}]").as_bytes(), item, indent, text);
            }
        }
        Fact::Fields(fields) => {
            for field in fields {
                let key: Vec<u8> = field.name.0.iter().map(|byte| if *byte == b'-' { b' ' } else { *byte }).collect();
                entry(out, &text.show(&key), &field.value, indent, text);
            }
        }
        _ => {}
    }
}

fn entry(out: &mut Vec<u8>, key: &[u8], value: &Fact, indent: usize, text: Text) {
    out.resize(out.len() + indent, b' ');
    out.extend_from_slice(key);
    out.push(b':');
    if matches!(value, Fact::List(_) | Fact::Fields(_)) {
        out.push(b'\n');
        return dump(out, value, indent + 4, text);
    }
    out.push(b' ');
    out.extend(plain(value, text));
    out.push(b'\n');
}

/// A single fact on one line.
pub fn plain(value: &Fact, text: Text) -> Vec<u8> {
    match value {
        Fact::Truth(truth) => truth.to_string().into_bytes(),
        Fact::Count(number) => number.to_string().into_bytes(),
        Fact::Signed(number) => number.to_string().into_bytes(),
        Fact::Millionths(number) => super::json::millionths(*number).into_bytes(),
        Fact::Text(bytes) => text.show(&bytes.0).into_owned(),
        Fact::List(items) => items.iter().map(|item| plain(item, text)).collect::<Vec<_>>().join(&b", "[..]),
        Fact::Fields(fields) => {
            let pair =
                |f: &instar_wire::fact::Field| [&text.show(&f.name.0), &b": "[..], &plain(&f.value, text)].concat();
            fields.iter().map(pair).collect::<Vec<_>>().join(&b", "[..])
        }
    }
}
