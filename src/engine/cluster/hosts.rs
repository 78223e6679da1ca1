//! The hosts file: which processes there are, and where.

use std::path::Path;

use crate::error::cluster::{ClusterError, Peer};

/// The processes of a cluster, and which of them this one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    addresses: Vec<String>,
    process: usize,
}

impl Hosts {
    /// Reads a file of one `host:port` a line, in the order of the processes; empty lines and those that begin with
    /// `#` are none.
    ///
    /// # Errors
    /// [`ClusterError`] naming the file and line, or a `process` beyond them.
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

    /// How many there are.
    pub fn processes(&self) -> usize {
        self.addresses.len()
    }

    /// Which this one is.
    pub fn process(&self) -> usize {
        self.process
    }

    /// This process.
    pub fn here(&self) -> Peer {
        self.peer(self.process)
    }

    /// A process, by its index.
    pub fn peer(&self, process: usize) -> Peer {
        Peer {
            process,
            address: self.addresses[process].clone(),
        }
    }

    /// Addresses in the order of the processes.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

/// `host:port`; an IPv6 host in brackets.
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
        let told = |error: ClusterError| error.to_string().replace(path.to_str().unwrap(), "hosts");
        Hosts::read(&path, process).map_err(told)
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
            let told = format!(
                "hosts file `hosts`, line 2: `{line}`, expected host:port with a port from 1 to 65535"
            );
            assert_eq!(read(&format!("x:1\n{line}\n"), 0), Err(told));
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
