//! The `throttle-group` object: limits of speed, read and checked against each other.
use super::{Complaint, Params, Value, number, unexpected, wrong_type};

const RATES: &[&str] = &["bps", "iops"];
const WAYS: &[&str] = &["total", "read", "write"];
const TAILS: &[&str] = &["", "-max", "-max-length"];

/// The names of all limits.
fn names() -> impl Iterator<Item = String> {
    let all = RATES.iter().flat_map(|rate| {
        let way = move |way: &&str| format!("{rate}-{way}");
        WAYS.iter().map(way).flat_map(|name| TAILS.iter().map(move |tail| format!("{name}{tail}")))
    });
    all.chain(["iops-size".to_owned()])
}

/// The lines of `--object throttle-group,help`.
pub fn help() -> Vec<String> {
    let mut lines: Vec<String> = names().map(|name| format!("x-{name}=<int>")).collect();
    lines.push("limits=<ThrottleLimits>".into());
    lines.sort();
    lines
}

/// Takes the limits out of `params`, without the `x-` or `limits.` before their names.
pub fn limits(params: &mut Params, modern: bool) -> Result<Vec<(Vec<u8>, i64)>, Complaint> {
    let json = params.json;
    let mut out = Vec::new();
    let inner = if modern { params.take("limits") } else { None };
    let mut inner = match inner {
        None => Vec::new(),
        Some(Value::Dict(inner)) => inner,
        Some(_) => return Err(wrong_type("limits", "object")),
    };
    for name in names() {
        let plain = format!("x-{name}");
        if let Some(value) = params.take(&plain) {
            out.push((name.clone().into_bytes(), integer(&plain, &value, json, modern)?));
        }
        let at = inner.iter().position(|(key, _)| key == name.as_bytes());
        if let Some((_, value)) = at.map(|at| inner.remove(at)) {
            let full = format!("limits.{name}");
            out.push((name.into_bytes(), integer(&full, &value, json, modern)?));
        }
    }
    match inner.first() {
        Some((key, _)) => Err(unexpected(&[b"limits.", key.as_slice()].concat())),
        None => Ok(out),
    }
}

fn integer(key: &str, value: &Value, json: bool, modern: bool) -> Result<i64, Complaint> {
    let read = match value {
        Value::Int(n) if json => Some(*n),
        Value::Text(text) if !json => number::whole(text).ok().and_then(|n| i64::try_from(n).ok()),
        _ => None,
    };
    let expected: &[u8] = if modern { b"' expects integer" } else { b"' expects an int64 value" };
    match json {
        true => read.ok_or_else(|| wrong_type(key, "integer")),
        false => read.ok_or_else(|| Complaint::new(&[b"Parameter '", key.as_bytes(), expected])),
    }
}

/// Refuses a total beside its parts.
pub fn check(limits: &[(Vec<u8>, i64)]) -> Result<(), Complaint> {
    const SENTENCE: &[u8] = b"bps/iops/max total values and read/write values cannot be used at the same time";
    let set = |name: String| limits.iter().any(|(key, n)| *key == name.as_bytes() && *n != 0);
    for rate in RATES {
        for tail in &TAILS[..2] {
            let parts = WAYS[1..].iter().any(|way| set(format!("{rate}-{way}{tail}")));
            if parts && set(format!("{rate}-total{tail}")) {
                return Err(Complaint::new(&[SENTENCE]));
            }
        }
    }
    Ok(())
}
