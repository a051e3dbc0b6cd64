//! Signatures, and what others make of them.

use super::*;

struct Signed {
    folder: tempfile::TempDir,
    recording: String,
    envelope: String,
}

/// A copy of a recording, signed.
fn signed(name: &str, private: &str) -> Signed {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("session.jsonl");
    fs::copy(recording(name), &copy).unwrap();
    let recording = copy.display().to_string();
    check(&["sign", "--key", &key(private), &recording], 0, "signed by key");
    let envelope = format!("{recording}.intoto.json");
    Signed { folder, recording, envelope }
}

#[test]
fn a_signature_is_of_one_file_and_by_one_key() {
    for (private, public, other) in
        [("pkcs8.pem", "spki.pem", "openssh.pub"), ("openssh", "openssh.pub", "spki.pem")]
    {
        let Signed { folder, recording, envelope } = signed("proven", private);
        let mode = fs::metadata(&envelope).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let with = |public: &str| [key(public), recording.clone()];
        let verify = |public: &str, code, says: &str| {
            let [key, recording] = with(public);
            check(&["verify", "--key", &key, &recording], code, says);
        };
        verify(public, 0, "signature: valid");
        verify(public, 0, "verdict: proven");
        verify(other, 11, "signature: NO");
        verify(private, 125, "private key");

        // An intact recording, but another one.
        let proven = fs::read(&recording).unwrap();
        fs::copy(self::recording("violated"), &recording).unwrap();
        verify(public, 11, "about another file");
        // The same events, chained again after an edit that changes no verdict.
        let text = String::from_utf8(proven.clone()).unwrap().replace("\"cpus\":", "\"cpus\":1");
        fs::write(&recording, chained(text.lines().map(body))).unwrap();
        check(&["verify", &recording], 0, "verdict: proven");
        verify(public, 11, "about another file");
        fs::write(&recording, [&proven[..], b"\n"].concat()).unwrap();
        verify(public, 11, "about another file");
        fs::write(&recording, proven).unwrap();

        // Elsewhere, by standard input, or not there at all.
        let moved = folder.path().join("statement").display().to_string();
        fs::rename(&envelope, &moved).unwrap();
        verify(public, 11, "tracer sign");
        let [public, recording] = with(public);
        let named = ["verify", "--key", &public, "--attestation", &moved];
        check(&[&named[..], &[&recording]].concat(), 0, "signature: valid");
        check(&["verify", "--key", &public, "-"], 125, "--attestation");
        fs::write(&moved, "{}").unwrap();
        check(&[&named[..], &[&recording]].concat(), 11, "no DSSE envelope");
    }
}

#[test]
fn signing_refuses_what_it_should() {
    let Signed { folder, recording, envelope } = signed("proven", "pkcs8.pem");
    let private = key("pkcs8.pem");
    check(&["sign", "--key", &private, &recording], 125, "--force");
    check(&["sign", "--force", "--key", &private, &recording], 0, "signed by key");
    check(&["sign", "--key", &key("spki.pem"), &recording], 125, "public key");
    check(&["sign", "--key", &key("openssh-locked"), &recording], 125, "passphrase");
    check(&["sign", "--key", "/nonexistent", &recording], 125, "cannot read the key");
    check(&["sign", "--key", &private, "-"], 125, "standard input");

    let precious = folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    fs::remove_file(&envelope).unwrap();
    symlink(&precious, &envelope).unwrap();
    check(&["sign", "--force", "--key", &private, &recording], 125, "symbolic link");
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    fs::remove_file(&envelope).unwrap();

    let text = fs::read(&recording).unwrap();
    let middle = text.len() / 2;
    let edited = [&text[..middle], b" ", &text[middle..]].concat();
    let lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
    for (unsound, says) in [
        (&edited[..], "damaged at line"),
        (&text[..text.len() - 1], "cut short"),
        (&text[..middle], "cut short"),
        (&lines[..5].concat(), "cut short"),
    ] {
        fs::write(&recording, unsound).unwrap();
        check(&["sign", "--key", &private, &recording], 11, "was not signed");
        check(&["sign", "--key", &private, &recording], 11, says);
        check(&["report", &recording], 11, says);
    }
    assert!(!Path::new(&envelope).exists());
}

/// `securesystemslib`, the library behind in-toto's own tools, which shares no code with tracer,
/// accepts what tracer signs and nothing else, and tracer accepts what it signs.
#[test]
fn an_independent_tool_agrees() {
    const SCRIPT: &str = "\
import base64, copy, hashlib, json, sys
from cryptography.hazmat.primitives import serialization as s
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey
recording, envelope, public, other, private, theirs = sys.argv[1:]
def load(path):
    data = open(path, 'rb').read()
    ssh = data.startswith(b'ssh-')
    key = s.load_ssh_public_key(data) if ssh else s.load_pem_public_key(data)
    der = key.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
    return SSlibKey.from_crypto(key, keyid=hashlib.sha256(der).hexdigest())
key, other = load(public), load(other)
data = json.load(open(envelope))
Envelope.from_dict(copy.deepcopy(data)).verify([key], 1)
statement = json.loads(Envelope.from_dict(copy.deepcopy(data)).payload)
assert data['payloadType'] == 'application/vnd.in-toto+json', data['payloadType']
assert statement['_type'] == 'https://in-toto.io/Statement/v1'
assert statement['predicateType'] == 'https://in-toto.io/attestation/runtime-trace/v0.1'
digest = hashlib.sha256(open(recording, 'rb').read()).hexdigest()
assert statement['subject'][0]['digest'] == {'sha256': digest}, statement['subject']
predicate = statement['predicate']
for field in ('monitor', 'monitoredProcess', 'monitorLog', 'metadata', 'completeness'):
    assert predicate[field], field
assert predicate['completeness']['verdict'] == 'proven', predicate['completeness']
def refused(what, data, keys):
    try:
        Envelope.from_dict(data).verify(keys, 1)
    except VerificationError:
        return
    sys.exit(f'{what} was accepted')
def changed(**fields):
    return {**copy.deepcopy(data), **fields}
other.keyid = key.keyid
refused('another key', changed(), [other])
edited = json.dumps({**statement, 'subject': []}).encode()
refused('an edited statement', changed(payload=base64.b64encode(edited).decode()), [key])
refused('another type', changed(payloadType='text/plain'), [key])
ours = Envelope(json.dumps(statement, indent=1).encode(), data['payloadType'], {})
ours.sign(CryptoSigner(s.load_pem_private_key(open(private, 'rb').read(), None)))
json.dump(ours.to_dict(), open(theirs, 'w'))
";
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python/bin/python3");
    let has_it =
        Command::new(&python).args(["-c", "import securesystemslib, cryptography"]).output();
    if !has_it.is_ok_and(|output| output.status.success()) {
        return skip("there is no Python with securesystemslib; `cargo xtask setup` makes one");
    }
    for (private, public, other) in
        [("pkcs8.pem", "spki.pem", "openssh.pub"), ("openssh", "openssh.pub", "spki.pem")]
    {
        let Signed { folder, recording, envelope } = signed("proven", private);
        let theirs = folder.path().join("theirs").display().to_string();
        let mut script = Command::new(&python);
        script.args(["-c", SCRIPT, &recording, &envelope, &key(public), &key(other)]);
        script.args([&key("pkcs8.pem"), &theirs]);
        let output = script.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let verify = |public: &str, code, says: &str| {
            let public = key(public);
            let arguments = ["verify", "--key", &public, "--attestation", &theirs, &recording];
            check(&arguments, code, says);
        };
        verify("spki.pem", 0, "signature: valid");
        verify("openssh.pub", 11, "signature: NO");
    }
}
