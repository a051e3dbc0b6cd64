//! Dead Simple Signing Envelope, version 1: what is signed is the payload together with its type.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::keys::{PrivateKey, PublicKey};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Signature {
    /// A hint only: it is not signed.
    #[serde(default)]
    keyid: String,
    sig: String,
}

#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("it is no DSSE envelope: {0}")]
    Malformed(String),
    #[error("its payload is `{0}`, not an in-toto statement")]
    OtherType(String),
    #[error("none of its {0} signatures is by this key, or the statement was edited")]
    NotSigned(usize),
}

/// Pre-authentication encoding: no two pairs of type and payload give the same bytes.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

pub(super) fn seal(payload_type: &str, payload: &[u8], key: &PrivateKey) -> String {
    let signature = Signature {
        keyid: key.public().id(),
        sig: STANDARD.encode(key.sign(&pae(payload_type, payload))),
    };
    let envelope = Envelope {
        payload: STANDARD.encode(payload),
        payload_type: payload_type.into(),
        signatures: vec![signature],
    };
    #[expect(clippy::expect_used, reason = "strings in a struct always serialise")]
    let mut text = serde_json::to_string(&envelope).expect("an envelope is JSON");
    text.push('\n');
    text
}

/// The payload, if any of the signatures is by this key.
pub(super) fn open(
    payload_type: &str,
    envelope: &[u8],
    key: &PublicKey,
) -> Result<Vec<u8>, EnvelopeError> {
    let envelope: Envelope = serde_json::from_slice(envelope)
        .map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
    if envelope.payload_type != payload_type {
        return Err(EnvelopeError::OtherType(envelope.payload_type));
    }
    let payload = STANDARD
        .decode(&envelope.payload)
        .map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
    let signed = pae(payload_type, &payload);
    let by_key = |signature: &Signature| {
        STANDARD.decode(&signature.sig).is_ok_and(|bytes| key.verify(&signed, &bytes))
    };
    if envelope.signatures.iter().any(by_key) {
        Ok(payload)
    } else {
        Err(EnvelopeError::NotSigned(envelope.signatures.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_the_specification_s_example() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn only_the_signed_payload_of_the_signed_type_by_the_key_opens() {
        let key = PrivateKey::from_seed([7; 32]);
        let other = PrivateKey::from_seed([8; 32]);
        let envelope = seal("text/x", b"payload", &key);
        let public = key.public();
        assert_eq!(open("text/x", envelope.as_bytes(), &public).unwrap(), b"payload");
        assert!(matches!(
            open("text/x", envelope.as_bytes(), &other.public()),
            Err(EnvelopeError::NotSigned(1))
        ));
        assert!(matches!(
            open("text/y", envelope.as_bytes(), &public),
            Err(EnvelopeError::OtherType(_))
        ));
        let renamed = envelope.replace("text/x", "text/y");
        assert!(matches!(
            open("text/y", renamed.as_bytes(), &public),
            Err(EnvelopeError::NotSigned(1))
        ));
        // Nothing but the hint can be changed.
        let hint = envelope.find("keyid").unwrap()..envelope.find("\"sig\"").unwrap();
        for at in (0..envelope.len() - 1).filter(|at| !hint.contains(at)) {
            let mut bytes = envelope.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(open("text/x", &bytes, &public).is_err(), "byte {at}");
        }
    }
}
