//! The system-call filter, from the policy beside this file; the same in debug and release builds.

use crate::Fall;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::io;

include!(concat!(env!("OUT_DIR"), "/policy.rs"));

/// Calls by number, each with what its second argument may be.
pub type Rule = (i64, &'static [u64]);

/// What the policy allows.
pub const RULES: &[Rule] = ALLOWED;

/// The filter as the kernel takes it: eight bytes an instruction.
pub fn program() -> Result<Vec<u8>, Fall> {
    program_of(RULES)
}

/// The filter that allows these calls.
pub fn program_of(allowed: &[Rule]) -> Result<Vec<u8>, Fall> {
    let build = || -> Result<BpfProgram, seccompiler::BackendError> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for (number, values) in allowed {
            let rule = |value: &u64| {
                let equal = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value)?;
                SeccompRule::new(vec![equal])
            };
            rules.insert(*number, values.iter().map(rule).collect::<Result<_, _>>()?);
        }
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
    };
    let program = build().map_err(|e| Fall::Host("the system-call filter", io::Error::other(e)))?;
    let instruction = |i: &seccompiler::sock_filter| {
        let ([c0, c1], [k0, k1, k2, k3]) = (i.code.to_le_bytes(), i.k.to_le_bytes());
        [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
    };
    Ok(program.iter().flat_map(instruction).collect())
}
