//! The shared secret of a cluster, and the handshake by which two processes prove to each other that both know it.
//!
//! ```text
//! the process that is called              the process that calls
//!   Challenge: random number a ─────────▶
//!                              ◀───────── Response: random number c, first message, HMAC(secret, "caller", a, c, message)
//!   Proof: HMAC(secret, "called", c, a) ▶
//! ```
//!
//! The secret itself is never sent. A recorded handshake is useless later, because both random numbers are new. The
//! handshake proves who is connected. It does not encrypt the connection: see docs/scale.md for tunnels.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::frame::{self, First};
use crate::error::cluster::ClusterError;

/// Smallest length of a secret in bytes. A shorter secret can be guessed from a recorded handshake.
const SHORTEST: usize = 16;

/// The secret that all processes of a cluster share. Its value is in no message, log or error.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Makes a secret of the text without white space at both ends. `from` names where the text comes from.
    ///
    /// # Errors
    /// Returns [`ClusterError::SecretShort`] if the text has fewer than 16 bytes.
    pub fn new(text: &str, from: &str) -> Result<Secret, ClusterError> {
        let text = text.trim();
        match text.len() >= SHORTEST {
            true => Ok(Secret(text.as_bytes().to_vec())),
            false => Err(ClusterError::SecretShort {
                from: from.to_owned(),
                found: text.len(),
                least: SHORTEST,
            }),
        }
    }

    /// Reads a secret from a file.
    ///
    /// # Errors
    /// Returns [`ClusterError::SecretUnread`] if the file cannot be read, and the errors of [`Secret::new`].
    pub fn read(path: &Path) -> Result<Secret, ClusterError> {
        let text = std::fs::read_to_string(path).map_err(|source| ClusterError::SecretUnread {
            path: path.to_owned(),
            source,
        })?;
        Secret::new(&text, &format!("file `{}`", path.display()))
    }

    fn sum(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut sum = Hmac::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in parts {
            sum.update(&(part.len() as u64).to_be_bytes());
            sum.update(part);
        }
        sum
    }

    fn proves(&self, parts: &[&[u8]], mac: &[u8]) -> bool {
        // This comparison takes the same time wherever the bytes differ.
        self.sum(parts).verify_slice(mac).is_ok()
    }
}

const CALLER: &[u8] = b"vaplan cluster: caller";
const CALLED: &[u8] = b"vaplan cluster: called";

type Nonce = [u8; 32];

#[derive(Serialize, Deserialize)]
struct Challenge(Nonce);

#[derive(Serialize, Deserialize)]
struct Response {
    nonce: Nonce,
    /// The encoded [`First`].
    first: Vec<u8>,
    mac: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
enum Verdict {
    Proof(Vec<u8>),
    Refused,
}

/// Why a connection is not one of the cluster.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The other process has another secret, or none.
    Secret,
    /// The connection broke, or the other program is not of this version of vaplan.
    Broken(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::Broken(error)
    }
}

/// Checks that the caller knows the secret, proves that this process knows it, and returns the first message.
pub(super) fn answer(stream: &mut (impl Read + Write), secret: &Secret) -> Result<First, Refusal> {
    let own: Nonce = rand::random();
    frame::write(stream, &Challenge(own))?;
    let Response { nonce, first, mac } = frame::read_short(stream)?;
    if !secret.proves(&[CALLER, &own, &nonce, &first], &mac) {
        frame::write(stream, &Verdict::Refused)?;
        return Err(Refusal::Secret);
    }
    let first = postcard::from_bytes(&first);
    let first = first.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let proof = secret.sum(&[CALLED, &nonce, &own]).finalize().into_bytes();
    frame::write(stream, &Verdict::Proof(proof.to_vec()))?;
    Ok(first)
}

/// Sends the first message, proves that this process knows the secret, and checks that the called process knows it.
pub(super) fn call(stream: &mut (impl Read + Write), secret: &Secret, first: &First) -> Result<(), Refusal> {
    let Challenge(theirs) = frame::read_short(stream)?;
    let nonce: Nonce = rand::random();
    let first = postcard::to_stdvec(first).map_err(io::Error::other)?;
    let mac = secret
        .sum(&[CALLER, &theirs, &nonce, &first])
        .finalize()
        .into_bytes();
    let mac = mac.to_vec();
    frame::write(stream, &Response { nonce, first, mac })?;
    match frame::read_short(stream)? {
        Verdict::Proof(proof) if secret.proves(&[CALLED, &nonce, &theirs], &proof) => Ok(()),
        Verdict::Proof(_) | Verdict::Refused => Err(Refusal::Secret),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn first() -> First {
        First::Hello {
            process: 2,
            asked: BTreeMap::from([("workers".to_owned(), "4".to_owned())]),
        }
    }

    /// The two ends of a handshake with these secrets.
    fn meet(called: &str, caller: &str) -> (Result<First, Refusal>, Result<(), Refusal>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let caller = Secret::new(caller, "a test").unwrap();
        let calls = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            call(&mut stream, &caller, &first())
        });
        let (mut stream, _) = listener.accept().unwrap();
        let answered = answer(&mut stream, &Secret::new(called, "a test").unwrap());
        (answered, calls.join().unwrap())
    }

    #[test]
    fn one_secret_is_accepted_and_another_is_refused_at_both_ends() {
        let (answered, called) = meet("0123456789abcdef", " 0123456789abcdef\n");
        assert_eq!(answered.unwrap(), first());
        called.unwrap();
        let (answered, called) = meet("0123456789abcdef", "0123456789abcdeF");
        assert!(matches!(answered, Err(Refusal::Secret)), "{answered:?}");
        assert!(matches!(called, Err(Refusal::Secret)), "{called:?}");
    }

    #[test]
    fn a_recorded_response_and_a_false_proof_are_refused() {
        /// Reads from a recording, and writes nowhere.
        struct Recorded(io::Cursor<Vec<u8>>);
        impl Read for Recorded {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(buffer)
            }
        }
        impl Write for Recorded {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let secret = Secret::new("0123456789abcdef", "a test").unwrap();
        let encoded = postcard::to_stdvec(&first()).unwrap();
        let nonce = [7; 32];
        // The response to another challenge.
        let mac = secret
            .sum(&[CALLER, &[9; 32], &nonce, &encoded])
            .finalize()
            .into_bytes();
        let mut bytes = Vec::new();
        let response = Response {
            nonce,
            first: encoded,
            mac: mac.to_vec(),
        };
        frame::write(&mut bytes, &response).unwrap();
        let refused = answer(&mut Recorded(io::Cursor::new(bytes)), &secret);
        assert!(matches!(refused, Err(Refusal::Secret)), "{refused:?}");
        // A program that listens at the address of a process, and does not know the secret.
        let mut bytes = Vec::new();
        frame::write(&mut bytes, &Challenge([1; 32])).unwrap();
        frame::write(&mut bytes, &Verdict::Proof(vec![0; 32])).unwrap();
        let refused = call(&mut Recorded(io::Cursor::new(bytes)), &secret, &first());
        assert!(matches!(refused, Err(Refusal::Secret)), "{refused:?}");
    }

    #[test]
    fn a_short_secret_is_refused_and_no_secret_is_printed() {
        let error = Secret::new(" short \n", "variable VAPLAN_SECRET")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "the secret of variable VAPLAN_SECRET has 5 bytes, expected at least 16: `openssl rand -hex 32` makes one"
        );
        let secret = Secret::new("0123456789abcdef", "a test").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
