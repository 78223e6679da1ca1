//! The hosts file: the processes of a cluster and their addresses.

use std::path::Path;

use crate::error::cluster::{ClusterError, Peer};

/// The processes of a cluster, and the index of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    addresses: Vec<String>,
    process: usize,
}

impl Hosts {
    /// Reads a hosts file. Each line is the `host:port` of one process, in order of index. Empty lines and lines that
    /// begin with `#` are ignored.
    ///
    /// # Errors
    /// Returns [`ClusterError`] if the file cannot be read or names no process, if a line is not an address or is there
    /// twice, or if `process` is not the index of a line.
    pub fn read(path: &Path, process: usize) -> Result<Hosts, ClusterError> {
        let text = std::fs::read_to_string(path).map_err(|source| ClusterError::HostsUnread {
            path: path.to_owned(),
            source,
        })?;
        let mut found: Vec<(usize, &str)> = Vec::new();
        for (nth, line) in text.lines().enumerate() {
            let (line, address) = (nth + 1, line.trim());
            if address.is_empty() || address.starts_with('#') {
                continue;
            }
            if !is_address(address) {
                return Err(ClusterError::HostLine {
                    path: path.to_owned(),
                    line,
                    found: address.to_owned(),
                });
            }
            if let Some((first, _)) = found.iter().find(|(_, other)| *other == address) {
                return Err(ClusterError::HostTwice {
                    path: path.to_owned(),
                    line,
                    first: *first,
                    found: address.to_owned(),
                });
            }
            found.push((line, address));
        }
        let Some(last) = found.len().checked_sub(1) else {
            return Err(ClusterError::HostsEmpty {
                path: path.to_owned(),
            });
        };
        if process > last {
            return Err(ClusterError::Process {
                process,
                last,
                path: path.to_owned(),
            });
        }
        Ok(Hosts {
            addresses: found.into_iter().map(|(_, address)| address.to_owned()).collect(),
            process,
        })
    }

    /// The number of processes.
    pub fn processes(&self) -> usize {
        self.addresses.len()
    }

    /// The index of this process.
    pub fn process(&self) -> usize {
        self.process
    }

    /// The index and address of this process.
    pub fn here(&self) -> Peer {
        self.peer(self.process)
    }

    /// The index and address of a process.
    pub fn peer(&self, process: usize) -> Peer {
        Peer {
            process,
            address: self.addresses[process].clone(),
        }
    }

    /// The addresses, in order of process.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

/// Returns whether the text is `host:port`, with an IPv6 address in brackets and a port from 1 to 65535.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let plain = !host.is_empty() && !host.contains([':', '[', ']', '/']);
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    (bracketed || plain)
        && !text.contains(char::is_whitespace)
        && digits
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, process: usize) -> Result<Hosts, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        std::fs::write(&path, text).unwrap();
        let message = |error: ClusterError| error.to_string().replace(path.to_str().unwrap(), "hosts");
        Hosts::read(&path, process).map_err(message)
    }

    #[test]
    fn a_line_is_a_process_and_what_is_none_is_named_by_line() {
        let hosts = read("# two\na.example:2101\n\n [::1]:2102 \n", 1).unwrap();
        assert_eq!(hosts.addresses(), ["a.example:2101", "[::1]:2102"]);
        assert_eq!(hosts.here().to_string(), "process 1 ([::1]:2102)");
        for line in [
            "a",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a b:1",
            "::1:1",
            "[]:1",
            "http://a:1",
            "a:1 b:1",
        ] {
            let message = format!(
                "hosts file `hosts`, line 2: `{line}`, expected host:port with a port from 1 to 65535"
            );
            assert_eq!(read(&format!("x:1\n{line}\n"), 0), Err(message));
        }
        assert_eq!(
            read("a:1\nb:1\na:1\n", 0).unwrap_err(),
            "hosts file `hosts`, line 3: `a:1` is line 1 already, expected one address a process"
        );
        assert_eq!(
            read("\n# none\n", 0).unwrap_err(),
            "hosts file `hosts` names no host, expected one host:port a line"
        );
        assert_eq!(
            read("a:1\nb:1\n", 2).unwrap_err(),
            "process 2, expected 0 to 1: hosts file `hosts` names 2 hosts"
        );
    }
}
