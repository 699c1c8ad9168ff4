//! `kiki audit witness`: a small C2SP tlog-witness. It cosigns the checkpoints of the logs that it knows, each only if it
//! continues the one before, so that a log cannot show two histories to two readers who both trust this witness.
//!
//! `POST /add-checkpoint` cosigns; `GET /<SHA-256 of the origin, hex>/checkpoint` shows the last that was. State is that
//! note, one file a log, on disk before the answer is given. TLS is a proxy's to add.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{self, DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use kiki::clock::Clock;
use kiki::lock::LockedFile;
use kiki::tlog::Checkpoint;
use kiki::tlog::note::{Cosigner, MAX_NOTE_BYTES, Note, SigningKey, VerifyingKey, Witness};
use kiki::tlog::portable::Growth;
use kiki::tlog::witness::{self, Refusal};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::error::{Doing as _, Failure};
use crate::out;

/// Runs a witness.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Folder of the witness's key and of what it cosigned last.
    #[arg(long, default_value = "./kiki-witness")]
    pub data: PathBuf,
    /// The witness's name, in its key and its cosignatures.
    #[arg(long, default_value = "kiki.local/witness-1")]
    pub name: String,
    /// The key of a log to cosign, or a file that holds it; a log's origin is its key's name. Any number; of a log that
    /// changes its key, both.
    #[arg(long = "log", required = true)]
    pub logs: Vec<String>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8090")]
    pub listen: String,
}

/// The state of a witness; clones share it.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    cosigner: Cosigner,
    /// By origin.
    logs: BTreeMap<String, Vec<VerifyingKey>>,
    /// What was cosigned last, by origin. Held from the judgement until the new one is on disk.
    latest: Mutex<BTreeMap<String, Checkpoint>>,
    clock: Clock,
    /// One witness a folder: two would cosign two histories.
    _lock: LockedFile,
}

impl Server {
    /// Reads the folder, and makes its key at the first start. Logs are (origin, key).
    ///
    /// # Errors
    /// A file that cannot be read, or holds what this witness did not cosign.
    pub fn open(folder: &Path, name: &str, logs: Vec<(String, VerifyingKey)>, clock: Clock) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder).doing(format_args!("making {}", folder.display()))?;
        let lock = LockedFile::lock(File::create(folder.join("lock")).doing(folder.display())?)
            .doing(folder.display())?
            .ok_or_else(|| Failure::new(format!("{}: another witness runs on it", folder.display())))?;
        let cosigner = Cosigner::new(key(folder, name)?);
        let mut keys: BTreeMap<String, Vec<VerifyingKey>> = BTreeMap::new();
        logs.into_iter().for_each(|(origin, key)| keys.entry(origin).or_default().push(key));
        let mut latest = BTreeMap::new();
        for origin in keys.keys() {
            let path = folder.join(file(origin));
            if path.exists() {
                latest.insert(origin.clone(), cosigned(&path, origin, cosigner.witness())?);
            }
        }
        let (folder, logs, latest) = (folder.to_owned(), keys, Mutex::new(latest));
        Ok(Self(Arc::new(Inner { folder, cosigner, logs, latest, clock, _lock: lock })))
    }

    /// The key that this witness's cosignatures verify under.
    #[must_use]
    pub fn witness(&self) -> &Witness {
        self.0.cosigner.witness()
    }

    /// Its HTTP face.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/add-checkpoint", post(add_checkpoint))
            .route("/{log}/checkpoint", get(checkpoint))
            // A checkpoint and at most 63 hashes of 45 bytes.
            .layer(DefaultBodyLimit::max(MAX_NOTE_BYTES + 4096))
            .with_state(self.clone())
    }

    /// Cosigns, and has it on disk; the signature line. The inner error is the disk's.
    fn cosign(&self, request: &str) -> Result<std::io::Result<String>, Refusal> {
        let request: Growth = request.parse().map_err(|e: kiki::tlog::portable::Error| Refusal::Malformed(e.to_string()))?;
        let origin = witness::origin(&request)?;
        let keys = self.0.logs.get(&origin).ok_or_else(|| Refusal::UnknownLog(origin.clone()))?;
        let mut latest = self.0.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut note, new) = witness::judge(&request, keys, latest.get(&origin))?;
        let time = u64::try_from(self.0.clock.now().0 / 1_000_000).unwrap_or(0);
        let signature = self.0.cosigner.cosign(&note.text, time);
        // Of the others only the log's own: who else signed is not this witness's to repeat.
        note.signatures.retain(|signature| keys.iter().any(|key| (key.name(), key.id()) == (&*signature.name, signature.id)));
        note.signatures.push(signature.clone());
        Ok(replace(&self.0.folder.join(file(&origin)), note.to_string().as_bytes()).map(|()| {
            latest.insert(origin, new);
            format!("{signature}\n")
        }))
    }
}

/// What this witness cosigned last of a log. Its own signature is enough: it saw the log's before it gave it, and the key may
/// have been replaced since.
fn cosigned(path: &Path, origin: &str, witness: &Witness) -> Result<Checkpoint, Failure> {
    let note = std::fs::read(path).doing(format_args!("reading {}", path.display()))?;
    let note = Note::parse(&note).doing(path.display())?;
    if witness.cosigned_at(&note).doing(path.display())?.is_none() {
        return Err(Failure::new(format!("{} is not cosigned by this witness", path.display())));
    }
    let checkpoint: Checkpoint = note.text.parse().doing(path.display())?;
    if checkpoint.origin != origin {
        return Err(Failure::new(format!("{} is of log {:?}, not of {origin:?}", path.display(), checkpoint.origin)));
    }
    Ok(checkpoint)
}

/// The file of a log, and its name in the URL: origins may have slashes.
fn file(origin: &str) -> String {
    hex::encode(Sha256::digest(origin))
}

fn key(folder: &Path, name: &str) -> Result<SigningKey, Failure> {
    let path = folder.join("witness.key");
    if !path.exists() {
        let seed = kiki::ids::Key::random().doing("making the witness's key")?;
        let key = SigningKey::new(name, seed.bytes()).doing("making the witness's key")?;
        crate::keys::write_secret(folder, &path, &key.to_secret_text()).doing(format_args!("writing {}", path.display()))?;
        let public = format!("{}\n", Cosigner::new(key).witness());
        replace(&folder.join("witness.pub"), public.as_bytes()).doing("writing witness.pub")?;
    }
    let key: SigningKey = std::fs::read_to_string(&path).doing(path.display())?.trim().parse().doing(path.display())?;
    if key.verifying_key().name() != name {
        return Err(Failure::new(format!("{} is the key of {:?}, not of {name:?}", path.display(), key.verifying_key().name())));
    }
    Ok(key)
}

/// Replaces a file, on disk when it returns.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let next = path.with_extension("new");
    let mut file = File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

async fn add_checkpoint(State(server): State<Server>, body: String) -> Response {
    let cosigned = tokio::task::spawn_blocking(move || server.cosign(&body)).await;
    match cosigned {
        Ok(Ok(Ok(line))) => line.into_response(),
        Ok(Err(Refusal::Conflict(size))) => {
            (StatusCode::CONFLICT, [(header::CONTENT_TYPE, "text/x.tlog.size")], format!("{size}\n")).into_response()
        }
        Ok(Err(refusal)) => {
            let status = StatusCode::from_u16(refusal.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
            (status, format!("{refusal}\n")).into_response()
        }
        Ok(Ok(Err(error))) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn checkpoint(State(server): State<Server>, extract::Path(log): extract::Path<String>) -> Response {
    let Some(file) = server.0.logs.keys().map(|origin| file(origin)).find(|file| *file == log) else {
        return (StatusCode::NOT_FOUND, "unknown log\n").into_response();
    };
    match tokio::fs::read_to_string(server.0.folder.join(file)).await {
        Ok(note) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], note).into_response(),
        _ => (StatusCode::NOT_FOUND, "no checkpoint of this log was cosigned\n").into_response(),
    }
}

/// Runs `kiki audit witness` until it is told to stop.
///
/// # Errors
/// A key or a folder that cannot be read, or an address that is taken.
pub async fn run(args: &Args) -> Result<(), Failure> {
    let logs = args.logs.iter().map(|log| {
        let key = crate::invoice::key(Some(log), &[])?;
        Ok((key.name().to_owned(), key))
    });
    let server = Server::open(&args.data, &args.name, logs.collect::<Result<_, Failure>>()?, Clock::System)?;
    let listener = tokio::net::TcpListener::bind(&args.listen).await.doing(format_args!("listening on {}", args.listen))?;
    let address = listener.local_addr().doing("listening")?;
    out::say(format_args!("witness  {}\nlisten   http://{address}\nready", server.witness()));
    let shutdown = CancellationToken::new();
    kiki::runtime::shutdown_on_signal(shutdown.clone());
    axum::serve(listener, server.router()).with_graceful_shutdown(shutdown.cancelled_owned()).await.doing("serving")
}
