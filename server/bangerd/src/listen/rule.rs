//! Whom a certificate names: the rules of the configuration, in their order.

use banger_core::{Owner, Role};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::IdentityRule;

/// What stands for any text in a pattern, and in a name for what that text was.
pub const WILDCARD: char = '*';
/// How the URIs begin by which `banger cert` names clients: `banger:ROLE/NAME`.
const OWN_SCHEME: &str = "banger";
/// The most of a certificate's names that is told.
const TOLD_MAX: usize = 240;

/// A text with at most one `*`, which stands for one or more characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Exactly this.
    Whole(String),
    /// This, anything, and that.
    Around(String, String),
}

impl Pattern {
    /// Whether a text is a pattern.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.matches(WILDCARD).count() <= 1
    }

    fn new(text: &str) -> Self {
        match text.split_once(WILDCARD) {
            Some((before, after)) => Self::Around(before.to_owned(), after.to_owned()),
            None => Self::Whole(text.to_owned()),
        }
    }

    /// What the `*` stands for in `text`, if it fits: the whole text where there is no `*`.
    fn fit<'a>(&self, text: &'a str) -> Option<&'a str> {
        match self {
            Self::Whole(whole) => (whole == text).then_some(text),
            Self::Around(before, after) => text
                .strip_prefix(before.as_str())
                .and_then(|rest| rest.strip_suffix(after.as_str()))
                .filter(|between| !between.is_empty()),
        }
    }
}

/// Whether a text can be the name of a client.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

/// What a certificate says of its holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    uris: Vec<String>,
    dns: Vec<String>,
    common_names: Vec<String>,
    organisations: Vec<String>,
}

impl Names {
    /// Those of a parsed certificate.
    #[must_use]
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        let alternative = certificate
            .extensions()
            .iter()
            .filter_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            })
            .flatten();
        for name in alternative {
            match name {
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => names.dns.push(dns.to_ascii_lowercase()),
                _ => {}
            }
        }
        let subject = certificate.subject();
        let texts = |text: Result<&str, _>| text.ok().map(str::to_owned);
        let common = subject.iter_common_name();
        names.common_names = common.filter_map(|name| texts(name.as_str())).collect();
        let organisations = subject.iter_organization();
        names.organisations = organisations
            .filter_map(|name| texts(name.as_str()))
            .collect();
        names
    }

    fn by_key(&self, key: &str) -> &[String] {
        match key {
            "uri" => &self.uris,
            "dns" => &self.dns,
            "cn" => &self.common_names,
            _ => &self.organisations,
        }
    }

    /// All of them for people, cut, and escaped: whoever made the certificate chose them.
    #[must_use]
    pub fn told(&self) -> String {
        let all: Vec<String> = ["uri", "dns", "cn", "organisation"]
            .into_iter()
            .flat_map(|key| {
                self.by_key(key)
                    .iter()
                    .map(move |value| format!("{key}={}", value.escape_debug()))
            })
            .collect();
        let text = all.join(", ");
        match text.len() {
            0 => "no names".to_owned(),
            length if length <= TOLD_MAX => text,
            _ => format!("{}…", &text[..text.floor_char_boundary(TOLD_MAX)]),
        }
    }
}

#[derive(Debug, Clone)]
struct Rule {
    patterns: Vec<(&'static str, Pattern)>,
    name: String,
    role: Role,
}

/// Why a certificate names nobody, though its authority is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmapped {
    /// No rule fits.
    NoRule,
    /// One does, and what it takes for a name is none.
    NotAName(String),
}

/// The rules.
#[derive(Debug, Clone)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Those of the configuration; without any, the URIs of `banger cert`.
    #[must_use]
    pub fn new(configured: &[IdentityRule]) -> Self {
        let rule = |rule: &IdentityRule| Rule {
            patterns: rule
                .patterns()
                .into_iter()
                .map(|(key, text)| match key {
                    "dns" => (key, Pattern::new(&text.to_ascii_lowercase())),
                    _ => (key, Pattern::new(text)),
                })
                .collect(),
            name: rule.name.clone(),
            role: rule.role,
        };
        if configured.is_empty() {
            return Self(own_rules().iter().map(rule).collect());
        }
        Self(configured.iter().map(rule).collect())
    }

    /// Who holds a certificate with these names: as the first rule says that fits.
    ///
    /// # Errors
    /// If none does, or it gives no name.
    pub fn judge(&self, names: &Names) -> Result<(Owner, Role), Unmapped> {
        let found = self
            .0
            .iter()
            .find_map(|rule| Some((rule, rule.fit(names)?)));
        let (rule, name) = found.ok_or(Unmapped::NoRule)?;
        let owner = is_name(&name)
            .then(|| Owner::of_certificate(&name))
            .flatten()
            .ok_or(Unmapped::NotAName(name))?;
        Ok((owner, rule.role))
    }
}

impl Rule {
    /// The name, if all patterns fit.
    fn fit(&self, names: &Names) -> Option<String> {
        let mut between = None;
        for (key, pattern) in &self.patterns {
            let values = names.by_key(key);
            let found = values.iter().find_map(|value| pattern.fit(value))?;
            if matches!(pattern, Pattern::Around(..)) {
                between = Some(found);
            }
        }
        Some(match between {
            Some(between) => self.name.replace(WILDCARD, between),
            None => self.name.clone(),
        })
    }
}

/// `banger:ROLE/NAME`, from the least role to the most: who has two has the lesser.
fn own_rules() -> Vec<IdentityRule> {
    Role::ALL
        .into_iter()
        .map(|role| IdentityRule {
            uri: Some(format!("{OWN_SCHEME}:{role}/{WILDCARD}")),
            dns: None,
            cn: None,
            organisation: None,
            name: WILDCARD.to_string(),
            role,
        })
        .collect()
}

/// A certificate's names and serial number, if it can be read.
#[must_use]
pub fn read(der: &[u8]) -> Option<Read> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(Read {
        names: Names::of(&certificate),
        serial: certificate
            .raw_serial()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}

/// What is read of a certificate.
#[derive(Debug, Clone)]
pub struct Read {
    /// Whom it names.
    pub names: Names,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// When it ends to be valid: seconds since the Unix epoch.
    pub not_after: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(uris: &[&str], dns: &[&str], cn: &str, organisation: &str) -> Names {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Names {
            uris: texts(uris),
            dns: texts(dns),
            common_names: vec![cn.to_owned()],
            organisations: vec![organisation.to_owned()],
        }
    }

    fn rules(text: &str) -> Rules {
        let config = crate::config::Config::parse(text).unwrap();
        assert!(config.check().is_ok(), "{:?}", config.check());
        Rules::new(&config.tcp.identities)
    }

    fn who(rules: &Rules, names: &Names) -> Result<String, Unmapped> {
        let (owner, role) = rules.judge(names)?;
        Ok(format!("{owner} {role}"))
    }

    #[test]
    fn without_rules_the_uris_of_banger_cert_count_and_nothing_else() {
        let rules = Rules::new(&[]);
        let uri = |uris: &[&str]| who(&rules, &names(uris, &["admin"], "root", "admin"));
        assert_eq!(uri(&["banger:user/ci"]).unwrap(), "cert:ci user");
        assert_eq!(
            uri(&["banger:admin/ann", "banger:viewer/ann"]).unwrap(),
            "cert:ann viewer"
        );
        assert_eq!(uri(&["spiffe://x/banger:admin/a"]), Err(Unmapped::NoRule));
        assert_eq!(uri(&["banger:root/a"]), Err(Unmapped::NoRule));
        assert_eq!(uri(&["banger:user/"]), Err(Unmapped::NoRule));
        assert_eq!(uri(&[]), Err(Unmapped::NoRule));
        for bad in ["a b", "uid:0", "a/b", "ä", "*"] {
            assert_eq!(
                uri(&[&format!("banger:admin/{bad}")]),
                Err(Unmapped::NotAName(bad.to_owned()))
            );
        }
    }

    #[test]
    fn all_patterns_of_a_rule_must_fit_and_the_first_rule_that_does_counts() {
        let rules = rules(
            r#"
            [tcp]
            [[tcp.identities]]
            uri = "spiffe://corp/ci/*"
            organisation = "Corp"
            name = "ci-*"
            role = "user"
            [[tcp.identities]]
            dns = "*.Build.example"
            name = "*"
            role = "viewer"
            [[tcp.identities]]
            cn = "Ann *"
            name = "ann"
            role = "operator"
            [[tcp.identities]]
            organisation = "Corp"
            name = "staff"
            role = "viewer"
            "#,
        );
        let both = names(&["spiffe://corp/ci/7"], &[], "x", "Corp");
        assert_eq!(who(&rules, &both).unwrap(), "cert:ci-7 user");
        let one = names(&["spiffe://corp/ci/7"], &[], "x", "Other");
        assert_eq!(who(&rules, &one), Err(Unmapped::NoRule));
        let dns = names(&[], &["other.example", "a.build.example"], "x", "y");
        assert_eq!(who(&rules, &dns).unwrap(), "cert:a viewer");
        let cn = names(&[], &[], "Ann Example", "Corp");
        assert_eq!(who(&rules, &cn).unwrap(), "cert:ann operator");
        let org = names(&[], &[], "Bob", "Corp");
        assert_eq!(who(&rules, &org).unwrap(), "cert:staff viewer");
    }

    #[test]
    fn names_are_told_escaped_and_cut() {
        let told = names(&["a\nb"], &[], "c", "d").told();
        assert_eq!(told, "uri=a\\nb, cn=c, organisation=d");
        assert!(names(&[&"x".repeat(4000)], &[], "", "").told().len() < 300);
        assert_eq!(Names::default().told(), "no names");
    }
}
