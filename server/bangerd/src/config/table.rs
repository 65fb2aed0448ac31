//! Tables of the configuration that hold one table for each name: what is wrong in one does not hide the rest.

use serde::de::DeserializeOwned;

use super::Mistake;

/// Takes what is wrong by itself, as a setting of `T`, out of the tables under `key`.
pub(super) fn sift<T: DeserializeOwned>(table: &mut toml::Table, key: &str) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    if let Some(toml::Value::Table(named)) = table.get_mut(key) {
        for (name, settings) in named {
            let toml::Value::Table(settings) = settings else {
                continue; // told with the other keys
            };
            settings.retain(|setting, value| {
                let alone = toml::Table::from_iter([(setting.to_owned(), value.clone())]);
                let wrong = alone.try_into::<T>().err();
                mistakes.extend(
                    wrong
                        .as_ref()
                        .map(|error| Mistake::of_key(&path(key, name, setting), error)),
                );
                wrong.is_none()
            });
        }
    }
    mistakes
}

/// The same for one table, under `key`.
pub(super) fn sift_one<T: DeserializeOwned>(table: &mut toml::Table, key: &str) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    if let Some(toml::Value::Table(settings)) = table.get_mut(key) {
        settings.retain(|setting, value| {
            let alone = toml::Table::from_iter([(setting.to_owned(), value.clone())]);
            let wrong = alone.try_into::<T>().err();
            let told = wrong.as_ref();
            mistakes.extend(told.map(|error| Mistake::of_key(&format!("{key}.{setting}"), error)));
            wrong.is_none()
        });
    }
    mistakes
}

/// How a setting of a named table is written.
pub(super) fn path(key: &str, name: &str, setting: &str) -> String {
    format!("{key}.\"{name}\".{setting}")
}
