//! Messages of VPP's module `vpe`.

use super::super::{ApiError, Cx, Handlers, Text, schema::Module};
use crate::api;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::Level;

/// The module.
pub const MODULE: Module = Module { name: "vpe", version: (1, 7, 0), messages: MESSAGES };

api! {
    /// Seconds since 1970.
    alias Timestamp = timestamp: f64;

    /// How grave a line of the log is.
    enum LogLevel = log_level: u32 {
        VPE_API_LOG_LEVEL_EMERG = 0, VPE_API_LOG_LEVEL_ALERT = 1, VPE_API_LOG_LEVEL_CRIT = 2,
        VPE_API_LOG_LEVEL_ERR = 3, VPE_API_LOG_LEVEL_WARNING = 4, VPE_API_LOG_LEVEL_NOTICE = 5,
        VPE_API_LOG_LEVEL_INFO = 6, VPE_API_LOG_LEVEL_DEBUG = 7, VPE_API_LOG_LEVEL_DISABLED = 8,
    }

    /// Asks for the version.
    call ShowVersion = show_version [read] {}
        -> ShowVersionReply = show_version_reply {
        program: Text<32>, version: Text<32>, build_date: Text<32>, build_directory: Text<256>,
    };

    /// Asks for the time.
    call ShowVpeSystemTime = show_vpe_system_time [read] {}
        -> ShowVpeSystemTimeReply = show_vpe_system_time_reply { vpe_system_time: Timestamp };

    /// Asks for the log.
    dump LogDump = log_dump { start_timestamp: Timestamp }
        -> LogDetails = log_details {
        timestamp: Timestamp, level: LogLevel, msg_class: Text<32>, message: Text<256>,
    };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.call(show_version);
    list.call(system_time);
    list.dump(log_dump);
}

fn log_dump(cx: &mut Cx<'_>, message: LogDump) -> Vec<LogDetails> {
    let level = |level: Level| match level {
        Level::ERROR => LogLevel::VPE_API_LOG_LEVEL_ERR,
        Level::WARN => LogLevel::VPE_API_LOG_LEVEL_WARNING,
        Level::INFO => LogLevel::VPE_API_LOG_LEVEL_INFO,
        _ => LogLevel::VPE_API_LOG_LEVEL_DEBUG,
    };
    let lines = cx.dp.log.lines().into_iter().filter(|line| line.time >= message.start_timestamp.0);
    let details = lines.map(|line| LogDetails {
        timestamp: Timestamp(line.time),
        level: level(line.level),
        msg_class: Text(line.class),
        message: Text(line.text),
    });
    details.collect()
}

fn show_version(_: &mut Cx<'_>, _: ShowVersion) -> Result<ShowVersionReply, ApiError> {
    // Clients look for VPP's name of the program.
    Ok(ShowVersionReply {
        program: "vpe".into(),
        version: concat!("wharf-", env!("CARGO_PKG_VERSION")).into(),
        ..ShowVersionReply::default()
    })
}

fn system_time(_: &mut Cx<'_>, _: ShowVpeSystemTime) -> Result<ShowVpeSystemTimeReply, ApiError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(ShowVpeSystemTimeReply { vpe_system_time: Timestamp(since.as_secs_f64()) })
}
