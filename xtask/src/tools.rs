//! The programs that the tests need: where they are, and what installs them.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// A program that the tests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// The Redis server.
    RedisServer,
    /// The Redis command line, which forms clusters.
    RedisCli,
    /// The Postgres server, beside its `initdb` and `psql`.
    Postgres,
    /// The NATS server.
    NatsServer,
    /// The RabbitMQ server.
    RabbitMq,
    /// Erlang's port mapper, which RabbitMQ needs.
    Epmd,
    /// What has an Erlang node evaluate something: how tests do what RabbitMQ's operators do.
    ErlCall,
    /// A Python that can `import msgpack`: the other language that reads stored values.
    Python,
    /// The library of clang, which reads the header of FoundationDB's client.
    LibClang,
    /// The server that speaks the protocol of DynamoDB. No system packages it; cargo builds it.
    Dynoxide,
}

/// The version of `dynoxide-rs` that is built where no `dynoxide` is found.
const DYNOXIDE: &str = "3.2.0";

impl Tool {
    /// Every tool of the tests that systems package, in the order in which they are reported.
    pub const ALL: [Self; 8] = [
        Self::RedisServer,
        Self::RedisCli,
        Self::Postgres,
        Self::NatsServer,
        Self::RabbitMq,
        Self::Epmd,
        Self::ErlCall,
        Self::Python,
    ];

    /// The path of the program, if it is on this machine.
    #[must_use]
    pub fn find(self) -> Option<PathBuf> {
        match self {
            Self::RedisServer => on_path("redis-server").next(),
            Self::RedisCli => on_path("redis-cli").next(),
            Self::Postgres => on_path("postgres").chain(debian_postgres()).find_map(|found| with_siblings(&found)),
            // Debian keeps it among the programs of the system, which are not on everybody's path.
            Self::NatsServer => on_path("nats-server").chain(system("nats-server")).next(),
            // What Debian has on the path is a wrapper that changes the user.
            Self::RabbitMq => debian_rabbitmq().chain(on_path("rabbitmq-server")).next(),
            Self::Epmd => on_path("epmd").next(),
            Self::ErlCall => on_path("erl_call").next(),
            Self::Python => python(),
            Self::LibClang => libclang(),
            Self::Dynoxide => on_path("dynoxide")
                .next()
                .or_else(|| Some(dynoxide_root().join("bin/dynoxide")).filter(|at| is_executable(at))),
        }
    }

    /// The path of the program.
    ///
    /// # Errors
    /// When the program is missing; the message says how to install it.
    pub fn require(self) -> Result<PathBuf> {
        self.find().ok_or_else(|| {
            Error::new(format!("{} is not on this machine; to install it: {}", self.name(), install_command(&[self])))
        })
    }

    /// What the program is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RedisServer => "redis-server",
            Self::RedisCli => "redis-cli",
            Self::Postgres => "postgres (with initdb and psql)",
            Self::NatsServer => "nats-server",
            Self::RabbitMq => "rabbitmq-server",
            Self::Epmd => "epmd",
            Self::ErlCall => "erl_call",
            Self::Python => "python3 with the module msgpack",
            Self::LibClang => "libclang",
            Self::Dynoxide => "dynoxide",
        }
    }

    /// The Debian and Ubuntu package that brings it; of dynoxide the crate.
    #[must_use]
    pub fn debian_package(self) -> &'static str {
        match self {
            Self::RedisServer => "redis-server",
            Self::RedisCli => "redis-tools",
            Self::Postgres => "postgresql",
            Self::NatsServer => "nats-server",
            Self::RabbitMq => "rabbitmq-server",
            Self::Epmd | Self::ErlCall => "erlang-base",
            Self::Python => "python3-msgpack",
            Self::LibClang => "libclang-dev",
            Self::Dynoxide => "dynoxide-rs",
        }
    }

    /// What the program says of its version, or an empty string.
    #[must_use]
    pub fn version(self) -> String {
        if self == Self::RabbitMq {
            return rabbitmq_version().unwrap_or_default();
        }
        // It has no word for it.
        if self == Self::ErlCall {
            return String::new();
        }
        let said = self.find().and_then(|path| Command::new(path).arg("--version").output().ok());
        let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        match said.split_once(" sha=") {
            Some((version, _)) => version.to_owned(),
            None => said,
        }
    }
}

/// The command that installs these tools here, or the nearest advice where the system's installer is not known.
#[must_use]
pub fn install_command(tools: &[Tool]) -> String {
    if tools == [Tool::Dynoxide] {
        return format!("cargo {}", install_dynoxide().join(" "));
    }
    let names: Vec<&str> = if cfg!(target_os = "macos") {
        tools.iter().map(|tool| homebrew(*tool)).collect()
    } else {
        tools.iter().map(|tool| tool.debian_package()).collect()
    };
    let names = names.join(" ");
    if cfg!(target_os = "macos") {
        format!("brew install {names} && python3 -m pip install msgpack")
    } else if on_path("apt-get").next().is_some() {
        format!("sudo apt-get install -y --no-install-recommends {names}")
    } else {
        format!("install what Debian calls {names} with this system's package manager")
    }
}

/// What cargo is told to build dynoxide, without the parts that the tests do not need.
#[must_use]
pub fn install_dynoxide() -> Vec<String> {
    let root = dynoxide_root();
    let words = "install dynoxide-rs --locked --no-default-features --features native-sqlite,http-server,cli --version";
    let mut words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    words.extend([DYNOXIDE.to_owned(), "--root".to_owned(), root.display().to_string()]);
    // Not in the target folder of this workspace, which another cargo may have locked.
    words.extend(["--target-dir".to_owned(), root.join("target").display().to_string()]);
    words
}

/// Where dynoxide is built: in the user's cache, so that every checkout finds it.
#[must_use]
pub fn dynoxide_root() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|cache| cache.is_absolute());
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache"))).unwrap_or_else(env::temp_dir);
    cache.join(format!("kvsync/dynoxide-{DYNOXIDE}"))
}

/// Every executable of this name on `PATH`, in order.
pub(crate) fn on_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let folders: Vec<PathBuf> = env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let name = name.to_owned();
    folders.into_iter().map(move |folder| folder.join(&name)).filter(|path| is_executable(path))
}

fn homebrew(tool: Tool) -> &'static str {
    match tool {
        Tool::RedisServer | Tool::RedisCli => "redis",
        Tool::Postgres => "postgresql",
        Tool::NatsServer => "nats-server",
        Tool::RabbitMq => "rabbitmq",
        Tool::Epmd | Tool::ErlCall => "erlang",
        Tool::Python => "python",
        Tool::LibClang => "llvm",
        Tool::Dynoxide => "dynoxide",
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Where those who build look for it, and where Debian's packages and Homebrew's put it.
fn libclang() -> Option<PathBuf> {
    let chosen = env::var_os("LIBCLANG_PATH").map(PathBuf::from);
    let children =
        |folder: &str| Path::new(folder).read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let versions =
        children("/usr/lib").filter(|path| path.to_string_lossy().contains("/llvm-")).map(|path| path.join("lib"));
    let others = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/opt/llvm/lib"].map(PathBuf::from);
    let architectures = children("/usr/lib").filter(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    let is_it = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let rest = name.strip_prefix("libclang").unwrap_or_default();
        rest.starts_with(['.', '-']) && (rest.contains(".so") || rest.contains(".dylib")) && !rest.starts_with("-cpp")
    };
    let folders = chosen.into_iter().chain(versions).chain(architectures).chain(others);
    folders.flat_map(|folder| children(&folder.to_string_lossy()).collect::<Vec<_>>()).find(is_it)
}

/// Debian keeps the server's programs off `PATH`, in a folder for each version; the newest comes first.
fn debian_postgres() -> impl Iterator<Item = PathBuf> {
    let versions = Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin/postgres")).collect();
    found.sort_by_key(|path| std::cmp::Reverse(version_of(path)));
    found.into_iter().filter(|path| is_executable(path))
}

fn debian_rabbitmq() -> impl Iterator<Item = PathBuf> {
    let path = PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server");
    is_executable(&path).then_some(path).into_iter()
}

/// From the name of its folder: to ask it would start an Erlang.
fn rabbitmq_version() -> Option<String> {
    let parts = Path::new("/usr/lib/rabbitmq/lib").read_dir().ok()?.flatten();
    let mut names = parts.filter_map(|entry| entry.file_name().into_string().ok());
    names.find_map(|name| name.strip_prefix("rabbitmq_server-").map(|version| format!("RabbitMQ {version}")))
}

/// A program in the folder of those that only the system runs.
fn system(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = Path::new("/usr/sbin").join(name);
    is_executable(&path).then_some(path).into_iter()
}

fn version_of(path: &Path) -> u32 {
    path.components().filter_map(|part| part.as_os_str().to_str()?.parse().ok()).next_back().unwrap_or(0)
}

/// The real place of a `postgres` that has `initdb` and `psql` beside it; on `PATH` it may be a lone link.
fn with_siblings(postgres: &Path) -> Option<PathBuf> {
    let real = postgres.canonicalize().ok()?;
    let folder = real.parent()?;
    ["initdb", "psql"].iter().all(|name| is_executable(&folder.join(name))).then_some(real)
}

/// The system's own Python comes last on many paths, but it is the one for which packages bring modules.
fn python() -> Option<PathBuf> {
    let chosen = env::var_os("KVSYNC_PYTHON").map(PathBuf::from);
    let system = PathBuf::from("/usr/bin/python3");
    chosen.into_iter().chain(on_path("python3")).chain([system]).find(|path| imports_msgpack(path))
}

fn imports_msgpack(python: &Path) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", "import msgpack"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
