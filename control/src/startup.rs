//! startup.conf: VPP's grammar, from a file or from arguments.
//!
//! ```text
//! unix { nodaemon cli-listen /run/wharf/cli.sock }
//! cpu { main-core 0 corelist-workers 1-3,5 }   # a comment
//! ```
//!
//! Stanzas and keys that wharf does not have are passed over with a warning, so that a configuration made
//! for VPP starts; a value that is wrong, or a brace too few, is an error with its line and column.

mod access;
mod cores;
mod display;
mod l2fib;
mod words;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use wharf_engine::buffer::MAX_DATA_SIZE;

pub use access::AccessConfig;
pub use cores::Cores;
pub use l2fib::L2FibConfig;
pub use words::{ConfigError, Position, Warning};
use words::{Reader, Word};

/// All of a configuration that wharf uses. What was not given is `None`, `false` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartupConfig {
    /// The process and its command line.
    pub unix: UnixConfig,
    /// Which cores do what.
    pub cpu: CpuConfig,
    /// The buffer pool.
    pub buffers: BuffersConfig,
    /// `interface { default-rx-mode }`.
    pub default_rx_mode: Option<RxMode>,
    /// The table of MAC addresses.
    pub l2fib: L2FibConfig,
    /// `socksvr`: the socket of the binary API; `None` for none.
    pub socksvr: Option<SocketName>,
    /// `statseg`: the socket of the stats segment.
    pub statseg: Option<SocketName>,
    /// `statseg { per-route-counters on }`: packets are counted by route.
    pub per_route_counters: bool,
    /// `prometheus { listen ADDRESS:PORT }`: where metrics are served.
    pub prometheus: Option<SocketAddr>,
    /// `api-trace { on }`.
    pub api_trace: bool,
    /// `config { file PATH }`: the configuration that wharf starts with.
    pub config_file: Option<PathBuf>,
    /// `config { journal PATH }`: where changes are recorded, to be there again at the next start.
    pub journal: Option<PathBuf>,
    /// Who may use the control sockets.
    pub access: AccessConfig,
}

/// The `unix` stanza.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixConfig {
    /// Stay in the foreground.
    pub nodaemon: bool,
    /// Read commands from standard input too; implies the foreground.
    pub interactive: bool,
    /// Log to standard error.
    pub nosyslog: bool,
    /// Write a whole core file on a crash.
    pub full_coredump: bool,
    /// No greeting in interactive sessions.
    pub cli_no_banner: bool,
    /// No pager in interactive sessions.
    pub cli_no_pager: bool,
    /// The unix socket of the command line.
    pub cli_listen: Option<PathBuf>,
    /// A file that gets a copy of the log.
    pub log: Option<PathBuf>,
    /// Commands to run at start (`exec` or `startup-config`).
    pub exec: Option<PathBuf>,
    /// The directory of sockets.
    pub runtime_dir: Option<PathBuf>,
    /// Where to write the process id.
    pub pidfile: Option<PathBuf>,
    /// The owner of the sockets, by name or number.
    pub uid: Option<String>,
    /// The group of the sockets, by name or number.
    pub gid: Option<String>,
    /// The prompt of interactive sessions.
    pub cli_prompt: Option<String>,
    /// How long a polling loop without work sleeps, in microseconds.
    pub poll_sleep_usec: Option<u32>,
}

/// The `cpu` stanza.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuConfig {
    /// The core of the main thread.
    pub main_core: Option<u16>,
    /// The cores of the workers, one each, in the order given.
    pub corelist_workers: Vec<u16>,
    /// How many workers, on cores that are chosen.
    pub workers: Option<u16>,
    /// How many of the first cores not to choose.
    pub skip_cores: u16,
    /// What thread names begin with.
    pub thread_prefix: Option<String>,
}

/// The `buffers` stanza.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuffersConfig {
    /// Buffers to make at start, per NUMA node.
    pub buffers_per_numa: Option<u32>,
    /// The most buffers that the pool may grow to.
    pub limit: Option<u32>,
    /// The pages of the pool.
    pub page_size: Option<PageSize>,
    /// Bytes of packet data in a buffer.
    pub data_size: Option<u32>,
}

/// The size of a pool's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// The system's normal pages.
    Default,
    /// The system's default huge pages.
    DefaultHuge,
    /// A size in bytes, a power of two.
    Bytes(u64),
}

/// How a receive queue waits for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxMode {
    /// Always look.
    Polling,
    /// Sleep until the device signals.
    Interrupt,
    /// Polling while there is work, interrupts otherwise.
    Adaptive,
}

/// A socket, at its usual place or elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketName {
    /// In the runtime directory.
    Default,
    /// Here.
    At(PathBuf),
}

const UNIX: &[&str] = &[
    "nodaemon",
    "interactive",
    "nosyslog",
    "full-coredump",
    "cli-no-banner",
    "cli-no-pager",
    "cli-listen",
    "log",
    "exec",
    "startup-config",
    "runtime-dir",
    "pidfile",
    "uid",
    "gid",
    "cli-prompt",
    "poll-sleep-usec",
    "nocolor",
    "nobanner",
    "use-current-dir",
    "cli-line-mode",
    "coredump-size",
    "cli-history-limit",
    "cli-pager-buffer-limit",
];
const CPU: &[&str] = &[
    "main-core",
    "corelist-workers",
    "coremask-workers",
    "workers",
    "skip-cores",
    "thread-prefix",
    "relative",
    "use-pthreads",
    "scheduler-policy",
    "scheduler-priority",
    "numa-heap-size",
];
const BUFFERS: &[&str] = &["buffers-per-numa", "limit", "page-size", "default", "layout", "numa"];
const INTERFACE: &[&str] = &["default-rx-mode"];
const SOCKSVR: &[&str] = &["default", "socket-name"];
const STATSEG: &[&str] = &[
    "default",
    "socket-name",
    "size",
    "page-size",
    "per-node-counters",
    "per-route-counters",
    "update-interval",
];
const PROMETHEUS: &[&str] = &["listen"];
const API_TRACE: &[&str] = &["on", "enable", "off", "disable", "nitems"];
const CONFIG: &[&str] = &["file", "journal"];

impl StartupConfig {
    /// Reads a configuration for a process that may use `cores`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str, cores: &Cores) -> Result<(StartupConfig, Vec<Warning>), ConfigError> {
        let root = words::parse(text)?;
        let mut config = StartupConfig::default();
        let mut top = Reader::new(&root, "the configuration", &[]);
        let mut warnings = Vec::new();
        while let Some(name) = top.key()? {
            if name.text == "heapsize" && !top.is_block_next() {
                top.value(name, "a size")?;
                top.warn(name.at, "`heapsize' has no effect");
                continue;
            }
            let block = top.block(name)?;
            let reader = |keys| Reader::new(block, &name.text, keys);
            let mut found = match name.text.as_str() {
                "unix" => config.unix.read(reader(UNIX))?,
                "cpu" => config.cpu.read(reader(CPU), cores)?,
                "buffers" => config.buffers.read(reader(BUFFERS))?,
                "interface" => read_interface(&mut config, reader(INTERFACE))?,
                "l2fib" => config.l2fib.read_l2fib(reader(l2fib::L2FIB))?,
                "l2learn" => config.l2fib.read_l2learn(reader(l2fib::L2LEARN))?,
                "socksvr" => read_socksvr(&mut config, reader(SOCKSVR))?,
                "statseg" => read_statseg(&mut config, reader(STATSEG))?,
                "prometheus" => read_prometheus(&mut config, reader(PROMETHEUS))?,
                "access" => config.access.read(reader(access::KEYS))?,
                "api-trace" => read_api_trace(&mut config, reader(API_TRACE))?,
                "config" => read_config(&mut config, reader(CONFIG))?,
                other => {
                    top.warn(name.at, format!("stanza `{other}' has no effect: ignored"));
                    Vec::new()
                }
            };
            warnings.append(&mut top.warnings);
            warnings.append(&mut found);
        }
        warnings.append(&mut top.warnings);
        Ok((config, warnings))
    }

    /// Reads a configuration from arguments, as VPP does: joined by blanks. Positions are columns of line 1.
    ///
    /// # Errors
    /// As [`StartupConfig::parse`].
    pub fn from_args<S: AsRef<str>>(
        args: impl IntoIterator<Item = S>,
        cores: &Cores,
    ) -> Result<(StartupConfig, Vec<Warning>), ConfigError> {
        let mut text = String::new();
        for arg in args {
            text.push_str(arg.as_ref());
            text.push(' ');
        }
        StartupConfig::parse(&text, cores)
    }
}

impl UnixConfig {
    fn read(&mut self, mut reader: Reader<'_>) -> Result<Vec<Warning>, ConfigError> {
        while let Some(key) = reader.key()? {
            let path = |reader: &mut Reader<'_>| reader.text(key, "a path").map(PathBuf::from).map(Some);
            match key.text.as_str() {
                "nodaemon" => self.nodaemon = true,
                "interactive" => self.interactive = true,
                "nosyslog" => self.nosyslog = true,
                "full-coredump" => self.full_coredump = true,
                "cli-no-banner" | "nobanner" => self.cli_no_banner = true,
                "cli-no-pager" => self.cli_no_pager = true,
                "cli-listen" => {
                    let value = reader.value(key, "the path of a unix socket")?;
                    // VPP also takes host:port, a root shell for whoever reaches the port.
                    if value.text.contains(':') && !value.text.contains('/') {
                        let message = format!("`cli-listen' must be a path, got `{}'", value.text);
                        return Err(ConfigError::new(value.at, message));
                    }
                    self.cli_listen = Some(PathBuf::from(&value.text));
                }
                "log" => self.log = path(&mut reader)?,
                "exec" | "startup-config" => self.exec = path(&mut reader)?,
                "runtime-dir" => self.runtime_dir = path(&mut reader)?,
                "pidfile" => self.pidfile = path(&mut reader)?,
                "uid" => self.uid = Some(reader.text(key, "a user")?),
                "gid" => self.gid = Some(reader.text(key, "a group")?),
                "cli-prompt" => self.cli_prompt = Some(reader.text(key, "a prompt")?),
                "poll-sleep-usec" => self.poll_sleep_usec = Some(reader.number(key, 0, 1_000_000)?),
                "nocolor" | "use-current-dir" | "cli-line-mode" => {}
                "coredump-size" | "cli-history-limit" | "cli-pager-buffer-limit" => {
                    reader.value(key, "a number")?;
                }
                _ => reader.unknown(key),
            }
        }
        Ok(reader.warnings)
    }
}

impl CpuConfig {
    /// The cores that workers can be put on when they are only counted, in order.
    pub fn free_cores<'a>(&'a self, cores: &'a Cores) -> impl Iterator<Item = u16> + 'a {
        cores.iter().skip(self.skip_cores.into()).filter(|core| Some(*core) != self.main_core)
    }

    fn read(&mut self, mut reader: Reader<'_>, cores: &Cores) -> Result<Vec<Warning>, ConfigError> {
        let count = cores.len();
        let mut list_key = None;
        let mut workers_key = None;
        let mut skip_key = None;
        while let Some(key) = reader.key()? {
            match key.text.as_str() {
                "main-core" => self.main_core = Some(cores.read_one(reader.value(key, "a core")?)?),
                "corelist-workers" => {
                    let value = reader.value(key, "a list of cores such as 1-3,5")?;
                    self.corelist_workers = cores.read_list(value)?;
                    list_key = Some((key, value));
                }
                "coremask-workers" => {
                    let value = reader.value(key, "a hexadecimal mask of cores")?;
                    self.corelist_workers = cores.read_mask(value)?;
                    list_key = Some((key, value));
                }
                "workers" => {
                    self.workers = Some(reader.number(key, 0, count)?);
                    workers_key = Some(key);
                }
                "skip-cores" => {
                    self.skip_cores = reader.number(key, 0, count.saturating_sub(1))?;
                    skip_key = Some(key);
                }
                "thread-prefix" => self.thread_prefix = Some(reader.text(key, "a prefix")?),
                "use-pthreads" => {}
                "relative" | "scheduler-policy" | "scheduler-priority" | "numa-heap-size" => {
                    reader.warn(key.at, format!("`{}' has no effect", key.text));
                    if key.text != "relative" {
                        reader.value(key, "a value")?;
                    }
                }
                _ => reader.unknown(key),
            }
        }
        if let (Some((list, _)), Some(workers)) = (list_key, workers_key) {
            let message = format!("`{}' and `workers' exclude each other", list.text);
            return Err(ConfigError::new(workers.at, message));
        }
        let left = self.free_cores(cores).count();
        if let (Some(key), Some(workers)) = (workers_key, self.workers)
            && usize::from(workers) > left
        {
            let message =
                format!("`workers' asks for {workers} cores, and {left} of {cores} are left for them");
            return Err(ConfigError::new(key.at, message));
        }
        let Some(main) = self.main_core else {
            return match list_key.map(|(key, _)| key).or(skip_key) {
                Some(key) => {
                    Err(ConfigError::new(key.at, format!("`{}' needs `main-core' beside it", key.text)))
                }
                None => Ok(reader.warnings),
            };
        };
        match list_key {
            Some((_, value)) if self.corelist_workers.contains(&main) => {
                Err(ConfigError::new(value.at, format!("core {main} is the main core already")))
            }
            _ => Ok(reader.warnings),
        }
    }
}

impl BuffersConfig {
    fn read(&mut self, mut reader: Reader<'_>) -> Result<Vec<Warning>, ConfigError> {
        while let Some(key) = reader.key()? {
            match key.text.as_str() {
                "buffers-per-numa" => self.buffers_per_numa = Some(reader.number(key, 1, u32::MAX)?),
                "limit" => self.limit = Some(reader.number(key, 1, u32::MAX)?),
                "page-size" => self.page_size = Some(page_size(reader.value(key, "a page size")?)?),
                "default" => {
                    let what = reader.value(key, "`data-size'")?;
                    if what.text != "data-size" {
                        let message = format!("expected `data-size' after `default', got `{}'", what.text);
                        return Err(ConfigError::new(what.at, message));
                    }
                    self.data_size = Some(reader.number(what, 256, MAX_DATA_SIZE as u32)?);
                }
                "layout" => {
                    reader.value(key, "`natural' or `packed'")?;
                }
                "numa" => {
                    reader.warn(key.at, "`numa' has no effect: there is one pool");
                    reader.value(key, "a number")?;
                    reader.block(key)?;
                }
                _ => reader.unknown(key),
            }
        }
        Ok(reader.warnings)
    }
}

fn page_size(word: &Word) -> Result<PageSize, ConfigError> {
    let text = word.text.as_str();
    match text {
        "default" => return Ok(PageSize::Default),
        "default-hugepage" => return Ok(PageSize::DefaultHuge),
        _ => {}
    }
    words::size(text).filter(|size| size.is_power_of_two() && *size >= 4096).map(PageSize::Bytes).ok_or_else(
        || {
            let message = format!("expected 4K, 2M, 1G, default or default-hugepage, got `{text}'");
            ConfigError::new(word.at, message)
        },
    )
}

fn read_interface(config: &mut StartupConfig, mut reader: Reader<'_>) -> Result<Vec<Warning>, ConfigError> {
    while let Some(key) = reader.key()? {
        match key.text.as_str() {
            "default-rx-mode" => {
                let what = "polling, interrupt or adaptive";
                let value = reader.value(key, what)?;
                config.default_rx_mode = Some(match value.text.as_str() {
                    "polling" => RxMode::Polling,
                    "interrupt" => RxMode::Interrupt,
                    "adaptive" => RxMode::Adaptive,
                    got => {
                        let message = format!("`default-rx-mode' must be {what}, got `{got}'");
                        return Err(ConfigError::new(value.at, message));
                    }
                });
            }
            _ => reader.unknown(key),
        }
    }
    Ok(reader.warnings)
}

/// `socksvr` and `statseg`; the stanza alone asks for the usual place.
/// A key that every stanza of a socket has; whether it was one.
fn read_socket_key(
    socket: &mut Option<SocketName>,
    key: &Word,
    reader: &mut Reader<'_>,
) -> Result<bool, ConfigError> {
    match key.text.as_str() {
        "default" => *socket = Some(SocketName::Default),
        "socket-name" => *socket = Some(SocketName::At(reader.text(key, "a path")?.into())),
        _ => return Ok(false),
    }
    Ok(true)
}

fn read_socksvr(config: &mut StartupConfig, mut reader: Reader<'_>) -> Result<Vec<Warning>, ConfigError> {
    config.socksvr = Some(SocketName::Default);
    while let Some(key) = reader.key()? {
        if !read_socket_key(&mut config.socksvr, key, &mut reader)? {
            reader.unknown(key);
        }
    }
    Ok(reader.warnings)
}

fn read_statseg(config: &mut StartupConfig, mut reader: Reader<'_>) -> Result<Vec<Warning>, ConfigError> {
    config.statseg = Some(SocketName::Default);
    while let Some(key) = reader.key()? {
        if read_socket_key(&mut config.statseg, key, &mut reader)? {
            continue;
        }
        match key.text.as_str() {
            "per-route-counters" => {
                let value = reader.value(key, "`on' or `off'")?;
                config.per_route_counters = match value.text.as_str() {
                    "on" => true,
                    "off" => false,
                    other => {
                        let message = format!("`per-route-counters' must be on or off, got `{other}'");
                        return Err(ConfigError::new(value.at, message));
                    }
                };
            }
            "size" | "page-size" | "per-node-counters" | "update-interval" => {
                reader.value(key, "a value")?;
            }
            _ => reader.unknown(key),
        }
    }
    Ok(reader.warnings)
}

fn read_prometheus(config: &mut StartupConfig, mut reader: Reader<'_>) -> Result<Vec<Warning>, ConfigError> {
    while let Some(key) = reader.key()? {
        match key.text.as_str() {
            "listen" => {
                let value = reader.value(key, "an address and port such as 127.0.0.1:9482")?;
                let address = value.text.parse().map_err(|_| {
                    ConfigError::new(value.at, format!("`{}' is not an address and port", value.text))
                });
                config.prometheus = Some(address?);
            }
            _ => reader.unknown(key),
        }
    }
    Ok(reader.warnings)
}

fn read_config(config: &mut StartupConfig, mut reader: Reader<'_>) -> Result<Vec<Warning>, ConfigError> {
    while let Some(key) = reader.key()? {
        match key.text.as_str() {
            "file" => config.config_file = Some(reader.text(key, "a path")?.into()),
            "journal" => config.journal = Some(reader.text(key, "a path")?.into()),
            _ => reader.unknown(key),
        }
    }
    Ok(reader.warnings)
}

fn read_api_trace(config: &mut StartupConfig, mut reader: Reader<'_>) -> Result<Vec<Warning>, ConfigError> {
    while let Some(key) = reader.key()? {
        match key.text.as_str() {
            "on" | "enable" => config.api_trace = true,
            "off" | "disable" => config.api_trace = false,
            "nitems" => {
                reader.number(key, 0, u32::MAX)?;
            }
            _ => reader.unknown(key),
        }
    }
    Ok(reader.warnings)
}
