//! Where the log goes: to standard error or a file, and its last lines to the control plane.

use std::fmt::{Debug, Write};
use std::fs;
use std::sync::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};
use wharf_control::log::Log;
use wharf_control::startup::StartupConfig;

/// Keeps what passes the filter in a [`Log`].
struct Keep(Log);

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let target = event.metadata().target();
        let class = target.trim_start_matches("wharf_").split("::").next().unwrap_or(target);
        self.0.push(*event.metadata().level(), class, text.0);
    }
}

/// Starts logging. The lines that are kept are in what it returns.
pub(super) fn start(config: &StartupConfig) -> super::Result<Log> {
    let log = Log::default();
    let filter = EnvFilter::try_from_env("WHARF_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = fmt::layer().with_target(false).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter).with(Keep(log.clone()));
    match &config.unix.log {
        Some(path) => {
            let file = fs::File::options().create(true).append(true).open(path);
            let file = file.map_err(|e| format!("cannot write the log {}: {e}", path.display()))?;
            registry.with(lines.with_writer(Mutex::new(file))).init();
        }
        None => registry.with(lines.with_writer(std::io::stderr)).init(),
    }
    Ok(log)
}
