//! Stores in Azure Blob Storage: its emulator Azurite, which the test starts.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use object_store::RetryConfig;
use object_store::azure::MicrosoftAzureBuilder;

use super::conflict::assert_one_writer_wins;
use super::{assert_at_once, label_words, make_inputs, wait_for, words};
use crate::open_outside::python;
use crate::support::{assert_status, scratch, stdout, vaplan};

/// The account and the key of every Azurite, which its documentation names. They are no secrets.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes the container `bucket`. The request is signed with the key, and the Python packages of the tests have no client.
const CONTAINER: &str = r#"
import base64, email.utils, hashlib, hmac, http.client, sys
account, key, port = sys.argv[1:]
path = f"/{account}/bucket"
headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
signed = "".join(f"{name}:{value}\n" for name, value in headers.items())
text = "PUT" + "\n" * 12 + signed + f"/{account}{path}\nrestype:container"
mac = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(mac).decode()}"
connection = http.client.HTTPConnection("127.0.0.1", int(port))
connection.request("PUT", path + "?restype=container", headers=headers | {"Content-Length": "0"})
answer = connection.getresponse()
sys.exit(answer.status != 201 and f"status {answer.status}: {answer.read().decode()}")
"#;

/// A server with one container, which ends with the value.
struct Azure {
    server: Child,
    endpoint: String,
    folder: tempfile::TempDir,
}

impl Drop for Azure {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Azure {
    fn start(test: &str) -> Option<Azure> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target/azurite/node_modules/azurite/dist/src/blob/main.js");
        if !program.is_file() {
            eprintln!("SKIPPED: {test} needs Azurite (scripts/azurite.sh installs it)");
            return None;
        }
        let python = python(test)?;
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let port = free.to_string();
        let server = Command::new("node")
            .arg(program)
            .args([
                "--inMemoryPersistence",
                "--skipApiVersionCheck",
                "--disableTelemetry",
            ])
            .args(["--silent", "--blobHost", "127.0.0.1", "--blobPort", &port])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Node.js, which installed Azurite, starts");
        let azure = Azure {
            server,
            endpoint: format!("http://127.0.0.1:{port}"),
            folder: scratch(),
        };
        wait_for(free);
        let made = Command::new(python)
            .args(["-c", CONTAINER, ACCOUNT, KEY, &port])
            .output()
            .unwrap();
        assert_status(&made, 0);
        Some(azure)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = vaplan();
        command
            .args(words)
            .env("AZURE_STORAGE_USE_EMULATOR", "true")
            .env("AZURITE_BLOB_STORAGE_URL", &self.endpoint)
            .env("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
            .env("AZURE_STORAGE_ACCOUNT_KEY", KEY)
            .env("VAPLAN_SCRATCH", self.path("scratch"))
            .current_dir(self.folder.path());
        command
    }

    fn done(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert_status(&output, 0);
        stdout(&output).to_owned()
    }

    /// All rows of the tables that hold results, but paths.
    fn rows(&self, store: &str) -> [String; 3] {
        [
            "SELECT * FROM labels ORDER BY video, modality, class, segment",
            "SELECT * FROM scores ORDER BY video, modality, class, segment",
            "SELECT * FROM label_changes ORDER BY version, video, modality, class, segment",
        ]
        .map(|sql| self.done(&["query", "--store", store, "--format", "csv", sql]))
    }
}

#[test]
fn commands_on_azure_give_the_rows_of_a_local_store() {
    let Some(azure) = Azure::start("commands_on_azure_give_the_rows_of_a_local_store") else {
        return;
    };
    let (local, remote, here) = (azure.path("store"), "az://bucket/a/store", azure.path(""));
    make_inputs(&here);
    let here = here.trim_end_matches('/');
    for store in [local.as_str(), remote] {
        azure.done(&words(&label_words(store, here)));
        azure.done(&["relabel", "--store", store, "--threshold", "visual/Speech=1.05"]);
    }
    assert_eq!(azure.rows(remote), azure.rows(&local));
    // Large files are written and read in parts.
    let parts = "az://bucket/parts";
    let mut label = azure.command(&words(&label_words(parts, here)));
    label
        .env("VAPLAN_PART_BYTES", "3000")
        .env("VAPLAN_WHOLE_BYTES", "2000");
    assert_status(&label.output().unwrap(), 0);
    azure.done(&["relabel", "--store", parts, "--threshold", "visual/Speech=1.05"]);
    assert_eq!(azure.rows(parts), azure.rows(&local));
    // Two writers at once: one waits for the lease of the other.
    let change = |class: &str| {
        let threshold = format!("visual/{class}=1.1");
        azure.command(&["relabel", "--store", remote, "--threshold", &threshold])
    };
    assert_at_once(["Dog", "Car"].iter().map(|class| change(class)));
    azure.done(&["optimize", "--store", remote]);
    azure.done(&["store", "--store", remote, "--copy-to", "az://bucket/copy"]);
    assert_eq!(azure.rows("az://bucket/copy"), azure.rows(remote));
    let vacuum = ["vacuum", "--store", remote, "--keep", "1", "--grace-hours", "0"];
    assert!(azure.done(&vacuum).contains("1 versions can be opened, 5 to 5"));
    for store in [remote, parts, "az://bucket/copy"] {
        azure.done(&["check", "--store", store]);
    }
    println!("8 commands on Azurite give the rows of a local store, also in parts");
}

#[test]
fn of_two_writers_that_commit_the_same_version_to_azure_one_wins_and_the_other_gets_the_conflict() {
    let test =
        "of_two_writers_that_commit_the_same_version_to_azure_one_wins_and_the_other_gets_the_conflict";
    let Some(azure) = Azure::start(test) else {
        return;
    };
    let here = azure.path("");
    make_inputs(&here);
    let remote = "az://bucket/race";
    azure.done(&words(&label_words(remote, here.trim_end_matches('/'))));
    let before = azure.rows(remote);
    let container = MicrosoftAzureBuilder::new()
        .with_endpoint(format!("{}/{ACCOUNT}", azure.endpoint))
        .with_allow_http(true)
        .with_account(ACCOUNT)
        .with_access_key(KEY)
        .with_container_name("bucket")
        .with_retry(RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        })
        .build()
        .unwrap();
    assert_one_writer_wins("azure", Arc::new(container), "race");
    azure.done(&["check", "--store", remote]);
    assert_eq!(azure.rows(remote), before);
    println!("4 conflicts of 2 writers on Azurite: one wins, the other is told");
}
