//! Certificates of an authority.

use jiff::Timestamp;
use serde::Serialize;

use crate::output::Row;

/// An authority that was made.
#[derive(Debug, Serialize)]
pub(crate) struct Authority {
    pub(crate) directory: String,
    pub(crate) name: String,
    pub(crate) not_after: Timestamp,
}

impl Row for Authority {
    const HEADINGS: &'static [&'static str] = &["DIRECTORY", "NAME", "ENDS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.directory.clone(),
            self.name.clone(),
            self.not_after.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.directory.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("directory", self.directory.clone()),
            ("name", self.name.clone()),
            ("ends", self.not_after.to_string()),
        ]
    }
}

/// A certificate.
#[derive(Debug, Serialize)]
pub(crate) struct Certificate {
    pub(crate) serial: String,
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) role: String,
    pub(crate) state: &'static str,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) revoke_time: Option<Timestamp>,
}

impl Row for Certificate {
    const HEADINGS: &'static [&'static str] = &["SERIAL", "NAME", "KIND", "ROLE", "STATE", "ENDS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.serial.clone(),
            self.name.clone(),
            self.kind.to_owned(),
            self.role.clone(),
            self.state.to_owned(),
            self.not_after.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.serial.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("serial", self.serial.clone()),
            ("name", self.name.clone()),
            ("kind", self.kind.to_owned()),
            ("role", self.role.clone()),
            ("state", self.state.to_owned()),
            ("ends", self.not_after.to_string()),
        ]
    }
}

/// A certificate that was issued, and where it is.
#[derive(Debug, Serialize)]
pub(crate) struct Issued {
    pub(crate) directory: String,
    #[serde(flatten)]
    pub(crate) certificate: Certificate,
}

impl Row for Issued {
    const HEADINGS: &'static [&'static str] = &["DIRECTORY", "SERIAL", "NAME", "ENDS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.directory.clone(),
            self.certificate.serial.clone(),
            self.certificate.name.clone(),
            self.certificate.not_after.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.directory.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details = vec![("directory", self.directory.clone())];
        details.extend(self.certificate.details());
        details
    }
}
