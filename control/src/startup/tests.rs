use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::access::Limits;

fn eight() -> Cores {
    (0..8).collect()
}

fn parse(text: &str) -> (StartupConfig, Vec<String>) {
    let (config, warnings) = StartupConfig::parse(text, &eight()).unwrap();
    (config, warnings.iter().map(Warning::to_string).collect())
}

#[test]
fn a_whole_configuration() {
    let (config, warnings) = parse(
        "# wharf\nunix {\n  nodaemon\n  log /var/log/wharf.log  # a copy\n  full-coredump\n  cli-listen /run/wharf/cli.sock\n  gid wharf\n  startup-config /etc/wharf/up.conf poll-sleep-usec 100 cli-prompt \"lab # \"\n coredump-size unlimited\n}\n\
         cpu { main-core 1 corelist-workers 2-3,5 }\n\
         buffers { buffers-per-numa 16384 page-size 2M default data-size 2048 limit 65536 }\n\
         interface{default-rx-mode adaptive}socksvr { default }\n\
         statseg { socket-name /run/wharf/stats.sock size 32M per-node-counters on per-route-counters on }\nprometheus { listen 127.0.0.1:9482 }\napi-trace { on }\n\
         config { file /etc/wharf/config.toml journal /var/lib/wharf/journal }\n\
         l2fib { table-size 256M num-buckets 1000000 } l2learn { limit 500000 }\n\
         access { read-only-gid monitors read-only-gid 77 api-rate 0 api-request-size 65536 cli-clients 8 cli-request-size 4194304 }\n",
    );
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(
        config,
        StartupConfig {
            unix: UnixConfig {
                nodaemon: true,
                full_coredump: true,
                log: Some("/var/log/wharf.log".into()),
                cli_listen: Some("/run/wharf/cli.sock".into()),
                gid: Some("wharf".into()),
                exec: Some("/etc/wharf/up.conf".into()),
                poll_sleep_usec: Some(100),
                cli_prompt: Some("lab # ".into()),
                ..UnixConfig::default()
            },
            cpu: CpuConfig { main_core: Some(1), corelist_workers: vec![2, 3, 5], ..CpuConfig::default() },
            buffers: BuffersConfig {
                buffers_per_numa: Some(16384),
                limit: Some(65536),
                page_size: Some(PageSize::Bytes(2 << 20)),
                data_size: Some(2048),
            },
            default_rx_mode: Some(RxMode::Adaptive),
            l2fib: L2FibConfig {
                num_buckets: Some(1 << 20),
                table_size: Some(256 << 20),
                learn_limit: Some(500_000),
            },
            socksvr: Some(SocketName::Default),
            statseg: Some(SocketName::At("/run/wharf/stats.sock".into())),
            per_route_counters: true,
            prometheus: Some("127.0.0.1:9482".parse().unwrap()),
            api_trace: true,
            config_file: Some("/etc/wharf/config.toml".into()),
            journal: Some("/var/lib/wharf/journal".into()),
            access: AccessConfig {
                read_only_gids: vec!["monitors".into(), "77".into()],
                limits: Limits {
                    api_rate: 0,
                    api_request: 64 << 10,
                    cli_clients: 8,
                    cli_request: 4 << 20,
                    ..Limits::default()
                },
                ..AccessConfig::default()
            },
        }
    );
}

#[test]
fn the_same_from_arguments() {
    let args = ["unix", "{", "interactive", "nosyslog", "}", "cpu", "{", "workers", "2", "}"];
    let (config, warnings) = StartupConfig::from_args(args, &eight()).unwrap();
    assert!(config.unix.interactive && config.unix.nosyslog);
    assert_eq!(config.cpu.workers, Some(2));
    assert_eq!(warnings, []);
    assert!(StartupConfig::from_args(["unix {", "nodaemon}"], &eight()).unwrap().0.unix.nodaemon);
    assert_eq!(StartupConfig::from_args(Vec::<String>::new(), &eight()).unwrap().0, StartupConfig::default());
}

#[test]
fn what_has_no_effect_is_warned_of_and_passed_over() {
    let (config, warnings) = parse(
        "dpdk { dev 0000:00:01.0 { name eth0 } no-multi-seg }\nheapsize 3G\ncpu {\n  frob 1 2 main-core 3\n  x { y { z } } workers 1\n  scheduler-policy fifo }\nunix { bogus value\n  nodaemon }\nbuffers { numa 0 { buffers 5 } }",
    );
    assert_eq!(config.cpu.main_core, Some(3));
    assert_eq!(config.cpu.workers, Some(1));
    assert!(config.unix.nodaemon);
    assert_eq!(
        warnings,
        [
            "1:1: stanza `dpdk' has no effect: ignored",
            "2:1: `heapsize' has no effect",
            "4:3: `cpu' has no key `frob': ignored",
            "5:3: `cpu' has no key `x': ignored",
            "6:3: `scheduler-policy' has no effect",
            "7:8: `unix' has no key `bogus': ignored",
            "9:11: `numa' has no effect: there is one pool",
        ]
    );
}

/// In a container that is pinned, cores need not begin at 0, nor be in a row.
#[test]
fn cores_of_a_pinned_process() {
    let cores: Cores = [4, 5, 7].into_iter().collect();
    let cpu =
        |text: &str| StartupConfig::parse(text, &cores).map(|(config, _)| config.cpu).map_err(|e| e.message);
    let workers = |text: &str| cpu(text).unwrap().free_cores(&cores).collect::<Vec<_>>();
    assert_eq!(cpu("cpu { main-core 4 corelist-workers 5,7 }").unwrap().corelist_workers, [5, 7]);
    assert_eq!(cpu("cpu { main-core 4 coremask-workers a0 }").unwrap().corelist_workers, [5, 7]);
    assert_eq!(workers("cpu { main-core 5 workers 2 }"), [4, 7]);
    assert_eq!(workers("cpu { main-core 4 skip-cores 1 workers 2 }"), [5, 7]);
    for bad in ["main-core 0", "main-core 4 corelist-workers 5-7", "main-core 4 coremask-workers 40"] {
        let error = cpu(&format!("cpu {{ {bad} }}")).unwrap_err();
        assert!(error.ends_with(": its cores are 4-5,7"), "{bad}: {error}");
    }
    assert!(cpu("cpu { main-core 4 workers 3 }").is_err());
}

#[test]
fn errors_have_a_place_and_say_what_was_expected() {
    for (text, error) in [
        ("unix {\n  nodaemon", "2:11: expected `}' for the `{' at 1:6"),
        ("unix { }\n}", "2:1: `}' without a `{'"),
        ("unix nodaemon", "1:6: expected `{' after `unix'"),
        ("unix", "1:5: expected `{' after `unix'"),
        ("{ }", "1:1: expected a key of `the configuration', got `{'"),
        ("unix { { } }", "1:8: expected a key of `unix', got `{'"),
        ("unix { log }", "1:12: expected a path after `log'"),
        ("unix { log { } }", "1:12: expected a path after `log'"),
        ("unix { cli-prompt \"x }", "1:19: missing closing quote"),
        ("unix { cli-listen localhost:5002 }", "1:19: `cli-listen' must be a path, got `localhost:5002'"),
        (
            "unix { poll-sleep-usec -1 }",
            "1:24: `poll-sleep-usec' must be a number from 0 to 1000000, got `-1'",
        ),
        (
            "cpu { main-core 0 skip-cores 2 workers 7 }",
            "1:32: `workers' asks for 7 cores, and 6 of 0-7 are left for them",
        ),
        ("cpu { workers 9 }", "1:15: `workers' must be a number from 0 to 8, got `9'"),
        ("cpu { corelist-workers 1-2 }", "1:7: `corelist-workers' needs `main-core' beside it"),
        ("cpu { skip-cores 1 }", "1:7: `skip-cores' needs `main-core' beside it"),
        ("cpu { main-core 0 corelist-workers 1,1-2 }", "1:36: core 1 is in the list twice"),
        ("cpu { corelist-workers 0-2 main-core 1 }", "1:24: core 1 is the main core already"),
        ("cpu { main-core 8 }", "1:17: wharf may not use core 8: its cores are 0-7"),
        (
            "cpu { main-core 0 corelist-workers 1-99999999999 }",
            "1:36: wharf may not use core 8: its cores are 0-7",
        ),
        ("cpu { main-core 0 corelist-workers 3-1 }", "1:36: `3-1' runs backwards"),
        ("cpu { main-core 0 corelist-workers 1, }", "1:36: expected a core, got `'"),
        ("cpu { main-core 0 coremask-workers 100 }", "1:36: wharf may not use core 8: its cores are 0-7"),
        ("cpu { main-core 0 coremask-workers 0 }", "1:36: expected a hexadecimal mask of cores, got `0'"),
        (
            "cpu { main-core 0 corelist-workers 1 workers 1 }",
            "1:38: `corelist-workers' and `workers' exclude each other",
        ),
        ("buffers { page-size 3K }", "1:21: expected 4K, 2M, 1G, default or default-hugepage, got `3K'"),
        ("buffers { default size 1 }", "1:19: expected `data-size' after `default', got `size'"),
        ("statseg { per-route-counters maybe }", "1:30: `per-route-counters' must be on or off, got `maybe'"),
        (
            "l2fib { num-buckets many }",
            "1:21: `num-buckets' must be a number such as 4096, 64K, 2M or 1G, at least 64 and at most 16777216, got `many'",
        ),
        (
            "l2fib { table-size 4K }",
            "1:20: `table-size' must be a number such as 4096, 64K, 2M or 1G, at least 8192, got `4K'",
        ),
        (
            "l2fib { num-buckets 64K table-size 1M }",
            "1:25: 65536 buckets are 8388608 bytes, and `table-size' is 1048576",
        ),
        ("l2learn { limit 0 }", "1:17: `limit' must be a number from 1 to 4294967295, got `0'"),
        (
            "interface { default-rx-mode fast }",
            "1:29: `default-rx-mode' must be polling, interrupt or adaptive, got `fast'",
        ),
    ] {
        assert_eq!(StartupConfig::parse(text, &eight()).unwrap_err().to_string(), error, "{text}");
    }
    let deep = format!("a {}", "{ a ".repeat(100_000));
    assert!(StartupConfig::parse(&deep, &eight()).unwrap_err().message.contains("nest deeper"));
}

#[test]
fn buckets_for_mac_addresses() {
    let buckets = |text: &str| parse(text).0.l2fib.buckets();
    assert_eq!(buckets(""), 1 << 18);
    assert_eq!(buckets("l2fib { num-buckets 1000 }"), 1024);
    assert_eq!(buckets("l2fib { table-size 1G }"), 1 << 18, "room is not there to be used up");
    assert_eq!(buckets("l2fib { table-size 3M }"), 1 << 14);
    assert_eq!(buckets("l2fib { table-size 8K }"), 64);
}

#[test]
fn a_mask_is_a_list() {
    assert_eq!(parse("cpu { main-core 0 coremask-workers 0x16 }").0.cpu.corelist_workers, [1, 2, 4]);
}

/// The key lists say where an unknown key's values end, so each has to be read.
#[test]
fn every_listed_key_is_read() {
    for (stanza, keys) in [
        ("unix", UNIX),
        ("cpu", CPU),
        ("buffers", BUFFERS),
        ("interface", INTERFACE),
        ("l2fib", l2fib::L2FIB),
        ("l2learn", l2fib::L2LEARN),
        ("socksvr", SOCKSVR),
        ("statseg", STATSEG),
        ("api-trace", API_TRACE),
        ("config", CONFIG),
        ("access", access::KEYS),
    ] {
        for key in keys {
            let text = format!("{stanza} {{ {key} }}");
            if let Ok((_, warnings)) = StartupConfig::parse(&text, &eight()) {
                assert!(warnings.iter().all(|warning| !warning.message.contains("no key")), "{text}");
            }
        }
    }
}

fn path() -> impl Strategy<Value = PathBuf> {
    "(/[^\"\0\n]{1,12}){1,3}".prop_map(PathBuf::from)
}

fn socket() -> impl Strategy<Value = SocketName> {
    prop_oneof![Just(SocketName::Default), path().prop_map(SocketName::At)]
}

prop_compose! {
    fn unix()(
        flags in any::<[bool; 6]>(),
        paths in [of(path()), of(path()), of(path()), of(path()), of(path())],
        texts in [of("[^\"]{0,8}"), of("[^\"]{0,8}"), of("[^\"]{0,8}")],
        poll_sleep_usec in of(0..1_000_000u32),
    ) -> UnixConfig {
        let [nodaemon, interactive, nosyslog, full_coredump, cli_no_banner, cli_no_pager] = flags;
        let [cli_listen, log, exec, runtime_dir, pidfile] = paths;
        let [uid, gid, cli_prompt] = texts;
        UnixConfig {
            nodaemon, interactive, nosyslog, full_coredump, cli_no_banner, cli_no_pager,
            cli_listen, log, exec, runtime_dir, pidfile, uid, gid, cli_prompt, poll_sleep_usec,
        }
    }
}

fn cpu() -> impl Strategy<Value = CpuConfig> {
    let listed =
        (Just([3u16, 1, 2, 5]).prop_shuffle(), 0..4usize, 0..2u16).prop_map(|(list, n, skip_cores)| {
            CpuConfig {
                main_core: Some(0),
                corelist_workers: list[..n].to_vec(),
                skip_cores,
                ..CpuConfig::default()
            }
        });
    let counted =
        (of(0..8u16), of(0..8u16), of("[^\"]{0,6}")).prop_map(|(main_core, workers, thread_prefix)| {
            CpuConfig { main_core, workers, thread_prefix, ..CpuConfig::default() }
        });
    prop_oneof![listed, counted]
}

prop_compose! {
    fn config()(
        unix in unix(),
        cpu in cpu(),
        counts in [of(1..u32::MAX), of(1..u32::MAX), of(256..65536u32)],
        page_size in of(prop_oneof![
            Just(PageSize::Default),
            Just(PageSize::DefaultHuge),
            (12..63u32).prop_map(|shift| PageSize::Bytes(1 << shift)),
        ]),
        default_rx_mode in of(prop_oneof![
            Just(RxMode::Polling), Just(RxMode::Interrupt), Just(RxMode::Adaptive)
        ]),
        sockets in [of(socket()), of(socket())],
        flags: [bool; 2],
        port: Option<u16>,
        files in [of(path()), of(path())],
        names in prop::array::uniform4(prop::collection::vec("[^\"]{1,6}", 0..3)),
        api_rate in 0..100_000_000u32,
        api_clients in 1..65536usize,
        api_request in 4096..(64usize << 20),
        l2fib in (of(6..20u32), of(1..u32::MAX)),
    ) -> StartupConfig {
        let [buffers_per_numa, limit, data_size] = counts;
        let [socksvr, statseg] = sockets;
        let api_trace = flags[0];
        let per_route_counters = flags[1] && statseg.is_some();
        let data_size = data_size.map(|size: u32| size.clamp(256, 65_024));
        let buffers = BuffersConfig { buffers_per_numa, limit, page_size, data_size };
        let prometheus = port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let [config_file, journal] = files;
        let [read_write_uids, read_write_gids, read_only_uids, read_only_gids] = names;
        let limits = Limits { api_rate, api_clients, api_request, ..Limits::default() };
        let access =
            AccessConfig { read_write_uids, read_write_gids, read_only_uids, read_only_gids, limits };
        let (shift, learn_limit) = l2fib;
        let table_size = shift.map(|shift| 128 << shift);
        let l2fib = L2FibConfig { num_buckets: shift.map(|shift| 1 << shift), table_size, learn_limit };
        StartupConfig {
            unix, cpu, buffers, default_rx_mode, l2fib, socksvr, statseg, per_route_counters, prometheus, api_trace, access, config_file, journal,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(config in config()) {
        let (read, warnings) = StartupConfig::parse(&config.to_string(), &eight()).unwrap();
        prop_assert_eq!(read, config);
        prop_assert_eq!(warnings, vec![]);
    }

    #[test]
    fn any_bytes_are_taken(bytes: Vec<u8>) {
        let _ = StartupConfig::parse(&String::from_utf8_lossy(&bytes), &eight());
    }

    #[test]
    fn any_words_are_taken(text in "((unix|cpu|buffers|main-core|workers|corelist-workers|coremask-workers|page-size|default|1-3|0x|9|\\{|\\}|\"|#|\n|K|2M|\u{e9})[ \n]?){0,30}", cores: Vec<u16>) {
        let _ = StartupConfig::parse(&text, &cores.into_iter().collect());
    }
}
