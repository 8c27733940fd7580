//! The configuration as text.

use super::{PageSize, RxMode, SocketName, StartupConfig};
use std::fmt;

/// Writes the configuration in the grammar that it is read from.
impl fmt::Display for StartupConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut stanza = Stanza::new("unix");
        let unix = &self.unix;
        for (key, set) in [
            ("nodaemon", unix.nodaemon),
            ("interactive", unix.interactive),
            ("nosyslog", unix.nosyslog),
            ("full-coredump", unix.full_coredump),
            ("cli-no-banner", unix.cli_no_banner),
            ("cli-no-pager", unix.cli_no_pager),
        ] {
            stanza.flag(key, set);
        }
        for (key, path) in [
            ("cli-listen", &unix.cli_listen),
            ("log", &unix.log),
            ("exec", &unix.exec),
            ("runtime-dir", &unix.runtime_dir),
            ("pidfile", &unix.pidfile),
        ] {
            stanza.value(key, path.as_ref().map(|path| path.display()));
        }
        stanza.value("uid", unix.uid.as_ref());
        stanza.value("gid", unix.gid.as_ref());
        stanza.value("cli-prompt", unix.cli_prompt.as_ref());
        stanza.value("poll-sleep-usec", unix.poll_sleep_usec);
        stanza.finish(f)?;

        let mut stanza = Stanza::new("cpu");
        let cores: Vec<String> = self.cpu.corelist_workers.iter().map(u16::to_string).collect();
        stanza.value("main-core", self.cpu.main_core);
        stanza.value("corelist-workers", (!cores.is_empty()).then(|| cores.join(",")));
        stanza.value("workers", self.cpu.workers);
        stanza.value("skip-cores", (self.cpu.skip_cores != 0).then_some(self.cpu.skip_cores));
        stanza.value("thread-prefix", self.cpu.thread_prefix.as_ref());
        stanza.finish(f)?;

        let mut stanza = Stanza::new("buffers");
        stanza.value("buffers-per-numa", self.buffers.buffers_per_numa);
        stanza.value("limit", self.buffers.limit);
        stanza.value(
            "page-size",
            self.buffers.page_size.map(|size| match size {
                PageSize::Default => "default".to_string(),
                PageSize::DefaultHuge => "default-hugepage".to_string(),
                PageSize::Bytes(bytes) => bytes.to_string(),
            }),
        );
        stanza.value("default data-size", self.buffers.data_size);
        stanza.finish(f)?;

        let mut stanza = Stanza::new("interface");
        stanza.value(
            "default-rx-mode",
            self.default_rx_mode.map(|mode| match mode {
                RxMode::Polling => "polling",
                RxMode::Interrupt => "interrupt",
                RxMode::Adaptive => "adaptive",
            }),
        );
        stanza.finish(f)?;

        for stanza in self.l2fib.stanzas() {
            stanza.finish(f)?;
        }
        for (name, socket) in [("socksvr", &self.socksvr), ("statseg", &self.statseg)] {
            let mut stanza = Stanza::new(name);
            match socket {
                None => {}
                Some(SocketName::Default) => stanza.flag("default", true),
                Some(SocketName::At(path)) => stanza.value("socket-name", Some(path.display())),
            }
            if name == "statseg" {
                stanza.value("per-route-counters", self.per_route_counters.then_some("on"));
            }
            stanza.finish(f)?;
        }
        let mut stanza = Stanza::new("prometheus");
        stanza.value("listen", self.prometheus);
        stanza.finish(f)?;
        let mut stanza = Stanza::new("api-trace");
        stanza.flag("on", self.api_trace);
        stanza.finish(f)?;
        let mut stanza = Stanza::new("config");
        stanza.value("file", self.config_file.as_ref().map(|path| path.display()));
        stanza.value("journal", self.journal.as_ref().map(|path| path.display()));
        stanza.finish(f)?;
        self.access.stanza().finish(f)
    }
}

/// Writes one stanza, or nothing when it stays empty.
pub(super) struct Stanza {
    name: &'static str,
    lines: String,
}

impl Stanza {
    pub(super) fn new(name: &'static str) -> Stanza {
        Stanza { name, lines: String::new() }
    }

    pub(super) fn flag(&mut self, key: &str, set: bool) {
        if set {
            self.lines.push_str(&format!("  {key}\n"));
        }
    }

    pub(super) fn value(&mut self, key: &str, value: Option<impl fmt::Display>) {
        let Some(value) = value else { return };
        let value = value.to_string();
        let plain = !value.is_empty()
            && !value.starts_with(['#', '"'])
            && !value.contains(|c: char| c.is_whitespace() || c == '{' || c == '}');
        let quote = if plain { "" } else { "\"" };
        self.lines.push_str(&format!("  {key} {quote}{value}{quote}\n"));
    }

    pub(super) fn finish(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            return Ok(());
        }
        write!(f, "{} {{\n{}}}\n", self.name, self.lines)
    }
}
