//! Certificates made by rcgen: whom they name, and how long they last.

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, ServerName};

use super::material::Term;
use super::names::{identity, speaks_for};
use super::server_name;

fn certificate(sans: &[SanType]) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names yet");
    params.subject_alt_names = sans.to_vec();
    let key = KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("signed").der().clone()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().expect("ASCII"))
}

#[test]
fn rfc5922_a_sip_domain_comes_before_a_user_and_a_dns_name() {
    let all =
        [dns("sbc.example"), uri("https://x.example"), uri("sip:a@example"), uri("sip:example")];
    assert_eq!(identity(&certificate(&all)), "sip:example");
    assert_eq!(identity(&certificate(&all[..3])), "sip:a@example");
    assert_eq!(identity(&certificate(&all[..2])), "sbc.example");
    let (one, other) = (certificate(&[]), certificate(&[]));
    assert!(identity(&one).starts_with("sha256:"));
    assert_ne!(identity(&one), identity(&other));
}

#[test]
fn rfc5922_names_match_whole_and_without_wildcards() {
    let speaks = |sans: &[SanType], host: &str| {
        speaks_for(&certificate(sans), &server_name(host).expect("a name")).is_ok()
    };
    assert!(speaks(&[dns("srs.example")], "SRS.example"));
    assert!(!speaks(&[dns("*.example")], "srs.example"));
    assert!(!speaks(&[dns("srs.example")], "example"));
    assert!(speaks(&[uri("sip:srs.example")], "srs.example"));
    // A SIP URI of a domain rules the DNS names out; one of a user says nothing of a domain.
    assert!(!speaks(&[uri("sip:other.example"), dns("srs.example")], "srs.example"));
    assert!(speaks(&[uri("sip:u@other.example"), dns("srs.example")], "srs.example"));
    assert!(!speaks(&[uri("sips:srs.example")], "srs.example"));
    let address = SanType::IpAddress([192, 0, 2, 1].into());
    assert!(speaks(std::slice::from_ref(&address), "192.0.2.1"));
    assert!(!speaks(&[address], "192.0.2.2"));
    assert!(!speaks(&[], "srs.example"));
    assert_eq!(server_name("[2001:db8::1]"), ServerName::try_from("2001:db8::1".to_owned()).ok());
}

#[test]
fn f62_the_end_of_a_certificate_is_told_in_time() {
    let level = |days| Term { days }.level();
    assert_eq!([level(31), level(30), level(8)], [None, Some(30), Some(30)]);
    assert_eq!([level(7), level(2), level(1), level(0)], [Some(7), Some(7), Some(1), Some(1)]);
    assert_eq!(level(-1), Some(0));
    assert!(Term { days: -1 }.is_over() && !Term { days: 0 }.is_over());
}
