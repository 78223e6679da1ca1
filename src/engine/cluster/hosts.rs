//! The hosts of a cluster: its processes and their addresses, in a file or a list.

use std::path::Path;

use crate::error::cluster::{ClusterError, HostSource, Peer};

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
        // Editors of Windows begin a file with this mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        Hosts::of_entries(text.lines(), HostSource::File(path.to_owned()), process)
    }

    /// Reads a list of addresses with commas, or the hosts file of this name. A text with a comma is a list, and so is a
    /// single address if no file has this name. An empty text is an empty list.
    ///
    /// # Errors
    /// Returns the same errors as [`Hosts::read`].
    pub fn of_text(text: &str, process: usize) -> Result<Hosts, ClusterError> {
        let path = Path::new(text);
        match text.contains(',') || text.trim().is_empty() || (is_address(text) && !path.exists()) {
            true => Hosts::of_entries(text.split(','), HostSource::List(text.to_owned()), process),
            false => Hosts::read(path, process),
        }
    }

    fn of_entries<'a>(
        entries: impl Iterator<Item = &'a str>,
        of: HostSource,
        process: usize,
    ) -> Result<Hosts, ClusterError> {
        let mut found: Vec<(usize, &str)> = Vec::new();
        for (nth, line) in entries.enumerate() {
            let (line, address) = (nth + 1, line.trim());
            if address.is_empty() || address.starts_with('#') {
                continue;
            }
            if !is_address(address) {
                return Err(ClusterError::HostLine {
                    of,
                    line,
                    found: address.to_owned(),
                });
            }
            if let Some((first, _)) = found.iter().find(|(_, other)| *other == address) {
                return Err(ClusterError::HostTwice {
                    of,
                    line,
                    first: *first,
                    found: address.to_owned(),
                });
            }
            found.push((line, address));
        }
        let Some(last) = found.len().checked_sub(1) else {
            return Err(ClusterError::HostsEmpty { of });
        };
        if process > last {
            return Err(ClusterError::Process { process, last, of });
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

/// Reads the address of `--bind`: an address of this host or a name of it, and a port.
///
/// # Errors
/// Returns a message for a text that is no such address.
pub fn bind_address(text: &str) -> Result<String, String> {
    match is_address(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{text}`, expected ADDRESS:PORT with a port from 1 to 65535, for example 0.0.0.0:2101 or [::]:2101"
        )),
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
    fn an_address_to_listen_at_has_a_port() {
        for text in ["0.0.0.0:2101", "[::]:2101", "node0:1"] {
            assert_eq!(bind_address(text), Ok(text.to_owned()));
        }
        for text in ["nonsense", "0.0.0.0:0", "::1:2101", "a:", ""] {
            let told = bind_address(text).unwrap_err();
            assert!(
                told.starts_with(&format!("`{text}`, expected ADDRESS:PORT")),
                "{told}"
            );
        }
    }

    #[test]
    fn a_list_with_commas_needs_no_file() {
        let hosts = Hosts::of_text("a:1, b:2,", 1).unwrap();
        assert_eq!(hosts.addresses(), ["a:1", "b:2"]);
        assert_eq!(Hosts::of_text("no-such-host:1", 0).unwrap().processes(), 1);
        for (list, told) in [
            (
                "a:1,b",
                "hosts list `a:1,b`, entry 2: `b`, expected host:port with a port from 1 to 65535, and an IPv6 address in \
                 brackets, as in [::1]:2101",
            ),
            (
                "a:1,a:1",
                "hosts list `a:1,a:1`, entry 2: `a:1` is entry 1 already, expected one address a process",
            ),
            (
                ",",
                "hosts list `,` names no host, expected one host:port per entry",
            ),
            (
                "",
                "hosts list `` names no host, expected one host:port per entry",
            ),
        ] {
            assert_eq!(Hosts::of_text(list, 0).unwrap_err().to_string(), told);
        }
        let error = Hosts::of_text("no/such/file", 0).unwrap_err();
        assert_eq!(error.to_string(), "cannot read hosts file `no/such/file`");
    }

    #[test]
    fn a_line_is_a_process_and_what_is_none_is_named_by_line() {
        let hosts = read("\u{feff}# two\r\na.example:2101\r\n\n [::1]:2102 \n", 1).unwrap();
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
                "hosts file `hosts`, line 2: `{line}`, expected host:port with a port from 1 to 65535, and an IPv6 address in \
                 brackets, as in [::1]:2101"
            );
            assert_eq!(read(&format!("x:1\n{line}\n"), 0), Err(message));
        }
        assert_eq!(
            read("a:1\nb:1\na:1\n", 0).unwrap_err(),
            "hosts file `hosts`, line 3: `a:1` is line 1 already, expected one address a process"
        );
        assert_eq!(
            read("\n# none\n", 0).unwrap_err(),
            "hosts file `hosts` names no host, expected one host:port per line"
        );
        assert_eq!(
            read("a:1\nb:1\n", 2).unwrap_err(),
            "process 2, expected 0 to 1: hosts file `hosts` names 2 hosts"
        );
    }
}
