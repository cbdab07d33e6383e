//! The shape of `store.encryption`: where the key-encryption key is.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `store.encryption`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Encryption {
    /// What is recorded is stored in clear.
    #[default]
    Off,
    /// The key is in this file.
    File(PathBuf),
    /// The service manager hands it over under this name (systemd, `LoadCredential=`).
    Credential(String),
}

const CREDENTIAL: &str = "credential:";

impl From<Encryption> for String {
    fn from(encryption: Encryption) -> Self {
        match encryption {
            Encryption::Off => "off".to_owned(),
            Encryption::File(path) => path.display().to_string(),
            Encryption::Credential(name) => format!("{CREDENTIAL}{name}"),
        }
    }
}

/// Text that names no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected \"off\", a path with a \"/\", or \"{CREDENTIAL}NAME\", found \"{found}\"")]
pub struct EncryptionError {
    found: String,
}

impl TryFrom<String> for Encryption {
    type Error = EncryptionError;

    fn try_from(text: String) -> Result<Self, EncryptionError> {
        // A name that is a file name and nothing else.
        let named = |name: &&str| {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
            !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
        };
        if text == "off" {
            return Ok(Encryption::Off);
        }
        if let Some(name) = text.strip_prefix(CREDENTIAL).filter(named) {
            return Ok(Encryption::Credential(name.to_owned()));
        }
        if text.contains('/') && !text.starts_with(CREDENTIAL) {
            return Ok(Encryption::File(PathBuf::from(text)));
        }
        Err(EncryptionError { found: text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_told_apart_and_written_as_it_was() {
        for text in ["off", "/etc/floortape/kek", "./kek", "credential:floortape.kek-1"] {
            let read = Encryption::try_from(text.to_owned()).expect("a form of its own");
            assert_eq!(String::from(read), text);
        }
        for text in ["", "on", "kek", "credential:", "credential:../kek", "credential:.x", "OFF"] {
            let refused = Encryption::try_from(text.to_owned()).expect_err("no form");
            assert!(refused.to_string().contains("credential:NAME"), "{refused}");
        }
    }
}
