//! The `[quota]` table and `[owners]`: what each owner may have.

use std::collections::BTreeMap;

use banger_app::vm::Limits;
use banger_core::Owner;

use super::Mistake;

/// The table for everybody.
const DEFAULT: &str = "quota";
/// The table of single owners.
const OWNERS: &str = "owners";

/// Takes what is wrong by itself out of the tables of quotas.
pub(super) fn sift(mut table: toml::Table) -> (toml::Table, Vec<Mistake>) {
    let mut mistakes = Vec::new();
    if let Some(toml::Value::Table(limits)) = table.get_mut(DEFAULT) {
        sift_limits(DEFAULT, limits, &mut mistakes);
    }
    if let Some(toml::Value::Table(owners)) = table.get_mut(OWNERS) {
        for (owner, limits) in owners {
            // What is no table is told with the other keys.
            if let toml::Value::Table(limits) = limits {
                sift_limits(&path(owner), limits, &mut mistakes);
            }
        }
    }
    (table, mistakes)
}

fn sift_limits(path: &str, limits: &mut toml::Table, mistakes: &mut Vec<Mistake>) {
    limits.retain(|key, value| {
        let alone = toml::Table::from_iter([(key.to_owned(), value.clone())]);
        let wrong = alone.try_into::<Limits>().err();
        let told = wrong.as_ref();
        mistakes.extend(told.map(|error| Mistake::of_key(&format!("{path}.{key}"), error)));
        wrong.is_none()
    });
}

fn path(owner: &str) -> String {
    format!("{OWNERS}.\"{owner}\"")
}

/// What types cannot say: an owner that nobody can be would be a limit for nobody.
pub(super) fn mistakes(owners: &BTreeMap<Owner, Limits>) -> Vec<Mistake> {
    let wrong = owners.keys().filter(|owner| !is_somebody(owner));
    let told = wrong.map(|owner| Mistake::new(&path(owner.as_str()), NOBODY));
    told.collect()
}

/// What is told of an owner's word that is nobody's.
pub(super) const NOBODY: &str = "must be written as uid: and a user's number, such as uid:1000, or as cert: and a certificate's name";

/// Whether a caller can have this word.
pub(super) fn is_somebody(owner: &Owner) -> bool {
    let is_user = owner.uid().is_some_and(|uid| Owner::of_uid(uid) == *owner);
    is_user || owner.certificate().is_some()
}
