//! The daemon: configuration, start, main loop, stop.

mod background;
mod log;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CpuSet;
use std::error::Error;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use wharf_control::access::{self, Access, Who};
use wharf_control::api::{ApiConfig, ApiServer};
use wharf_control::cli::{Server, ServerConfig};
use wharf_control::dataplane::{Dataplane, engine_config};
use wharf_control::log::Log;
use wharf_control::shared::Shared;
use wharf_control::shell::DaemonShell;
use wharf_control::startup::{Cores, RxMode, SocketName, StartupConfig, Warning};
use wharf_control::stats::{Prometheus, StatsServer};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "\
usage: wharf -c FILE          read the configuration from a startup.conf
       wharf STANZA { ... }   the same words as arguments, as in
                              wharf unix { nodaemon } cpu { main-core 0 corelist-workers 1 }
       wharf --version | --help";

/// Runs the daemon until it is told to stop.
pub(crate) fn run(args: Vec<String>) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--version" | "-V"] => {
            println!("wharf v{}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return Ok(());
        }
        [] => return Err(USAGE.into()),
        _ => {}
    }
    let cores = cores();
    let (config, warnings) = read_config(&args, &cores)?;
    for warning in &warnings {
        eprintln!("wharf: warning: {warning}");
    }
    if !config.unix.nodaemon && !config.unix.interactive && !background::is_child() {
        return background::start(&args, &cli_socket(&config));
    }
    let log = log::start(&config)?;
    serve(&config, &cores, log)
}

/// The cores that this process may use.
fn cores() -> Cores {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU as u16).filter(|core| set.is_set((*core).into())).collect(),
        // More cores than the set has room for.
        Err(_) => (0..std::thread::available_parallelism().map_or(1, |n| n.get() as u16)).collect(),
    }
}

fn read_config(args: &[String], cores: &Cores) -> Result<(StartupConfig, Vec<Warning>)> {
    if args[0] == "-c" {
        let [_, file] = args else { return Err(format!("-c takes one file\n{USAGE}").into()) };
        let text = fs::read_to_string(file).map_err(|e| format!("cannot read {file}: {e}"))?;
        return StartupConfig::parse(&text, cores).map_err(|e| format!("{file}:{e}").into());
    }
    Ok(StartupConfig::from_args(args, cores).map_err(|e| format!("arguments: {e}"))?)
}

fn runtime_dir(config: &StartupConfig) -> PathBuf {
    if let Some(dir) = &config.unix.runtime_dir {
        return dir.clone();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !rustix::process::geteuid().is_root() => Path::new(&dir).join("wharf"),
        _ => PathBuf::from("/run/wharf"),
    }
}

fn cli_socket(config: &StartupConfig) -> PathBuf {
    config.unix.cli_listen.clone().unwrap_or_else(|| runtime_dir(config).join("cli.sock"))
}

/// The path of a socket that has a usual name in the runtime directory.
fn socket_path(config: &StartupConfig, name: Option<&SocketName>, usual: &str) -> PathBuf {
    match name {
        Some(SocketName::At(path)) => path.clone(),
        Some(SocketName::Default) | None => runtime_dir(config).join(usual),
    }
}

/// Who may use the sockets, by names or numbers.
fn access(config: &StartupConfig) -> std::result::Result<Access, String> {
    let user = |name: &String| access::number(name, Path::new("/etc/passwd"));
    let group = |name: &String| access::number(name, Path::new("/etc/group"));
    let who = |users: &[String], groups: &[String]| -> std::result::Result<Who, String> {
        let uids = users.iter().map(user).collect::<std::result::Result<_, _>>()?;
        Ok(Who { uids, gids: groups.iter().map(group).collect::<std::result::Result<_, _>>()? })
    };
    let lists = &config.access;
    Ok(Access {
        owner: config.unix.uid.as_ref().map(user).transpose()?,
        group: config.unix.gid.as_ref().map(group).transpose()?,
        read_write: who(&lists.read_write_uids, &lists.read_write_gids)?,
        read_only: who(&lists.read_only_uids, &lists.read_only_gids)?,
        limits: lists.limits.clone(),
    })
}

/// As many descriptors as the system lets us have: each memif interface takes one, and one for each of its rings.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!("the limit of {:?} descriptors cannot be raised: {error}", limit.current);
    }
}

/// What a journal says, else what the file says.
fn configure(config: &StartupConfig, dataplane: &mut Dataplane) -> Result<bool> {
    let restored = match &config.journal {
        Some(journal) => dataplane.restore_config(journal)?,
        None => false,
    };
    match &config.config_file {
        Some(file) if restored => {
            tracing::info!("{} is not read: the journal says what was configured last", file.display());
            dataplane.set_config_file(file);
        }
        Some(file) => dataplane.start_config(file)?,
        None => {}
    }
    if let Some(journal) = &config.journal {
        dataplane.record_config(journal)?;
    }
    Ok(restored)
}

fn serve(config: &StartupConfig, cores: &Cores, log: Log) -> Result<()> {
    // Signals first: one that comes during the start must not leave anything behind.
    let (signals, mut notify) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, notify.try_clone()?)?;
    }
    let dir = runtime_dir(config);
    let access = access(config)?;
    access::make_directory(&dir, &access)
        .map_err(|e| format!("cannot make the runtime directory {}: {e}", dir.display()))?;
    if let Some(core) = config.cpu.main_core
        && !core_affinity::set_for_current(core_affinity::CoreId { id: core.into() })
    {
        tracing::warn!("main cannot be pinned to core {core}");
    }
    wharf_drivers::af_xdp::raise_memlock_limit();
    raise_descriptor_limit();

    let mut dataplane = Dataplane::start(&engine_config(config, cores), &dir, |_| {})?;
    if let Some(mode) = config.default_rx_mode {
        dataplane.set_usual_rx_mode(match mode {
            RxMode::Polling => wharf_engine::device::RxMode::Polling,
            RxMode::Interrupt => wharf_engine::device::RxMode::Interrupt,
            RxMode::Adaptive => wharf_engine::device::RxMode::Adaptive,
        });
    }
    dataplane.set_l2fib(config.l2fib);
    if config.per_route_counters {
        dataplane.count_routes()?;
    }
    dataplane.set_log(log);
    dataplane.trace_api(config.api_trace);
    let restored = configure(config, &mut dataplane)?;
    let poll_fd = dataplane.poll_fd();
    let dataplane = Arc::new(Shared::new(dataplane));
    let shell = Arc::new(DaemonShell::new(Arc::clone(&dataplane))?);

    let mut server = ServerConfig::new(cli_socket(config));
    let [api_clients, cli_clients] = dataplane.main().clients();
    server.access = access.clone();
    server.clients = cli_clients;
    server.prompt = config.unix.cli_prompt.clone().unwrap_or_else(|| "wharf# ".into());
    if config.unix.cli_no_banner {
        server.banner = None;
    }
    let socket = cli_socket(config);
    let server = Server::start(server, shell.clone())
        .map_err(|e| format!("cannot listen on {}: {e}", socket.display()))?;
    let api = ApiConfig {
        path: socket_path(config, config.socksvr.as_ref(), "api.sock"),
        access: access.clone(),
        clients: api_clients,
    };
    let mut api = ApiServer::start(&api, shell.clone())?;
    let stats = socket_path(config, config.statseg.as_ref(), "stats.sock");
    let mut stats = StatsServer::start(&stats, access)?;
    let _prometheus = match config.prometheus {
        Some(address) => {
            let stats = Arc::clone(dataplane.main().engine().stats());
            let failed = |e| format!("cannot serve metrics on {address}: {e}");
            let prometheus = Prometheus::start(address, stats).map_err(failed)?;
            tracing::info!("metrics at http://{}/metrics", prometheus.address());
            Some(prometheus)
        }
        None => None,
    };
    if let Some(pidfile) = &config.unix.pidfile {
        fs::write(pidfile, format!("{}\n", std::process::id()))
            .map_err(|e| format!("cannot write {}: {e}", pidfile.display()))?;
        let _ = fs::set_permissions(pidfile, fs::Permissions::from_mode(0o644));
    }
    let script = match &config.unix.exec {
        Some(script) if restored => {
            tracing::info!("{} is not run: the journal says what was configured last", script.display());
            None
        }
        Some(script) => Some((
            script.clone(),
            fs::read_to_string(script).map_err(|e| format!("cannot read {}: {e}", script.display()))?,
        )),
        None => None,
    };
    // The script runs beside the main loop, which its commands may need.
    let runner = script.map(|(path, text)| {
        let shell = Arc::clone(&shell);
        std::thread::spawn(move || {
            let outcome = shell.run_script(&path.display().to_string(), &text);
            if let Some(error) = outcome.error {
                tracing::error!("{error}");
            }
        })
    });
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("wharf v{} runs, CLI at {}", env!("CARGO_PKG_VERSION"), socket.display());

    loop {
        let next = {
            let mut dataplane = dataplane.main();
            let now = Instant::now();
            let due = dataplane.process(now);
            stats.process(dataplane.engine());
            due.min(api.process(&mut dataplane, now))
        };
        let wait = next.saturating_duration_since(Instant::now());
        let timeout =
            rustix::time::Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let wake = [signals.as_fd(), poll_fd.as_fd(), api.poll_fd(), stats.poll_fd()];
        let mut fds = wake.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("cannot wait for events: {error}").into()),
        }
        if fds[0].revents().contains(PollFlags::IN) {
            break;
        }
    }
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    drop(runner);
    dataplane.main().shut_down();
    // Who waited for the journal hears that it has all.
    api.finish();
    server.stop();
    if let Some(pidfile) = &config.unix.pidfile {
        let _ = fs::remove_file(pidfile);
    }
    let _ = std::io::Write::flush(&mut notify);
    Ok(())
}
