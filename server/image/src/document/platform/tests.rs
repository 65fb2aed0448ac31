use std::collections::BTreeMap;

use banger_core::Digest;

use super::*;

fn entry(platform: &str) -> Descriptor {
    let mut parts = platform.split('/').map(str::to_owned);
    let platform = DescriptorPlatform {
        os: parts.next().unwrap(),
        architecture: parts.next().unwrap(),
        variant: parts.next(),
    };
    Descriptor {
        platform: Some(platform),
        ..Descriptor::new(super::super::OCI_MANIFEST, Digest::of(b"x"), 1)
    }
}

fn chosen(wanted: &str, available: &[&str]) -> Result<String, String> {
    let manifests: Vec<_> = available.iter().map(|platform| entry(platform)).collect();
    match choose(&manifests, &wanted.parse().unwrap()) {
        Ok(found) => {
            let at = manifests.iter().position(|one| std::ptr::eq(one, found));
            Ok(available[at.unwrap()].to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn the_best_variant_that_runs_is_chosen() {
    for (wanted, available, best) in [
        (
            "linux/amd64",
            &["linux/arm64", "linux/amd64"][..],
            "linux/amd64",
        ),
        (
            "linux/amd64",
            &["linux/amd64/v3", "linux/amd64"],
            "linux/amd64",
        ),
        (
            "linux/amd64",
            &["linux/amd64/v3", "linux/amd64/v1"],
            "linux/amd64/v1",
        ),
        (
            "linux/amd64/v3",
            &["linux/amd64", "linux/amd64/v2"],
            "linux/amd64/v2",
        ),
        (
            "linux/amd64/v2",
            &["linux/amd64", "linux/amd64/v3"],
            "linux/amd64",
        ),
        (
            "linux/arm64",
            &["linux/arm/v7", "linux/arm64/v8"],
            "linux/arm64/v8",
        ),
        ("linux/arm64/v8", &["linux/arm64"], "linux/arm64"),
        (
            "linux/arm64/v9",
            &["linux/arm64", "linux/arm64/v8"],
            "linux/arm64/v8",
        ),
        (
            "linux/arm",
            &["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"],
            "linux/arm/v7",
        ),
        (
            "linux/arm/v7",
            &["linux/arm/v5", "linux/arm/v6"],
            "linux/arm/v6",
        ),
        (
            "linux/arm/v6",
            &["linux/arm/v7", "linux/arm/v5"],
            "linux/arm/v5",
        ),
        (
            "linux/riscv64",
            &["linux/amd64", "linux/riscv64"],
            "linux/riscv64",
        ),
        (
            "linux/ppc64le",
            &["linux/amd64", "linux/ppc64le/power8"],
            "linux/ppc64le/power8",
        ),
        (
            "linux/amd64",
            &["unknown/unknown", "linux/amd64"],
            "linux/amd64",
        ),
    ] {
        assert_eq!(
            chosen(wanted, available).as_deref(),
            Ok(best),
            "{wanted} of {available:?}"
        );
    }
}

#[test]
fn what_does_not_run_is_not_chosen_and_what_there_is_is_told() {
    let told = chosen(
        "linux/amd64/v2",
        &[
            "unknown/unknown",
            "linux/arm64/v8",
            "linux/amd64/v3",
            "windows/amd64",
        ],
    );
    assert_eq!(
        told.unwrap_err(),
        "the image has no variant for linux/amd64/v2; it has linux/arm64/v8, linux/amd64/v3, windows/amd64"
    );
    assert!(chosen("linux/arm/v6", &["linux/arm/v7"]).is_err());
    assert!(chosen("linux/amd64", &["linux/amd64/v3"]).is_err());
    assert!(chosen("linux/amd64/v77", &["linux/amd64"]).is_err());
    let nothing = chosen("linux/amd64", &["unknown/unknown"]);
    assert_eq!(
        nothing.unwrap_err(),
        "the image has no variant for linux/amd64; it has none"
    );
}

#[test]
fn an_attestation_is_no_image_whatever_platform_it_names() {
    let mut attestation = entry("linux/amd64");
    attestation.annotations =
        BTreeMap::from([(REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned())]);
    let manifests = [attestation, entry("linux/amd64")];
    let wanted = "linux/amd64".parse().unwrap();
    assert!(std::ptr::eq(
        choose(&manifests, &wanted).unwrap(),
        &raw const manifests[1]
    ));
}
