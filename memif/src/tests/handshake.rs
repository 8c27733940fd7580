//! The handshake between honest peers, and what it refuses from mistaken ones.

use super::*;
use crate::{CloseReason, Error, HandshakeError, Mode, Secret};

#[test]
fn both_learn_about_each_other() {
    let mut listener =
        Listener::bind(ListenerConfig { app_name: "the-server".into(), ..listener_config() }, Instant::now())
            .unwrap();
    let secret = Secret::new(b"psst").unwrap();
    listener
        .add(InterfaceConfig { mode: Mode::Ip, secret: Some(secret), ..InterfaceConfig::new(7, "memif0/7") })
        .unwrap();
    let client = ClientConfig {
        id: 7,
        mode: Mode::Ip,
        secret: Some(secret),
        name: "eth0".into(),
        app_name: "the-client".into(),
        rx_queues: 2,
        tx_queues: 3,
        ..config(&listener)
    };
    let client = Client::connect(client, Instant::now()).unwrap();
    let mut l = run(&mut listener, client);
    for (info, interface, app) in
        [(&l.server.info, "eth0", "the-client"), (&l.client.info, "memif0/7", "the-server")]
    {
        assert_eq!((info.id, info.mode), (7, Mode::Ip));
        assert_eq!((info.remote_interface.as_str(), info.remote_app.as_str()), (interface, app));
        assert_eq!(info.peer.unwrap().pid, std::process::id() as i32);
    }
    assert_eq!(l.server.info.region_sizes, l.client.info.region_sizes);
    assert_eq!((l.server.rx.len(), l.server.tx.len()), (3, 2));
    assert_eq!(listener.interfaces().collect::<Vec<_>>(), [(7, true)]);

    assert_eq!((l.server.control.process(), l.client.control.process()), (None, None));
    l.client.control.disconnect("going home");
    l.client.control.disconnect("again");
    assert_eq!(l.client.control.process(), Some(&CloseReason::Local { reason: "going home".into() }));
    let want = CloseReason::Remote { code: 0, reason: "going home".into() };
    assert_eq!(l.server.control.process(), Some(&want));
    assert_eq!(listener.interfaces().collect::<Vec<_>>(), [(7, false)]);
}

#[test]
fn a_client_takes_what_the_server_grants() {
    let mut config_ = listener_config();
    config_.limits.max_rings = 2;
    config_.limits.max_log2_ring_size = 6;
    let mut listener = Listener::bind(config_, Instant::now()).unwrap();
    listener.add(InterfaceConfig::new(0, "x")).unwrap();
    let mut wish = config(&listener);
    (wish.rx_queues, wish.tx_queues) = (4, 1);
    let l = {
        let client = Client::connect(wish, Instant::now()).unwrap();
        run(&mut listener, client)
    };
    assert_eq!((l.client.rx.len(), l.client.tx.len()), (2, 1));
    assert_eq!(l.client.rx[0].ring_state().size, 64);
}

/// Runs a handshake that must fail at both ends; returns both errors. No time passes for it.
fn fails(listener: &mut Listener, client: ClientConfig) -> (HandshakeError, Error) {
    let now = Instant::now();
    let mut client = Client::connect(client, now).unwrap();
    let (mut at_server, mut at_client) = (None, None);
    while at_server.is_none() || at_client.is_none() {
        assert!(now.elapsed() < Duration::from_secs(10));
        for event in listener.process(now) {
            match event {
                ServerEvent::Failed { error, .. } => at_server = Some(error),
                other => panic!("{other:?}"),
            }
        }
        if at_client.is_none() {
            at_client = client.process(now).err();
        }
    }
    (at_server.unwrap(), at_client.unwrap())
}

#[test]
fn mistaken_clients_are_told_why() {
    let mut listener = listener();
    let secret = Some(Secret::new(b"right").unwrap());
    listener.add(InterfaceConfig { secret, ..InterfaceConfig::new(1, "secret") }).unwrap();
    listener.add(InterfaceConfig { max_queues: 1, ..InterfaceConfig::new(2, "narrow") }).unwrap();
    let base = config(&listener);
    let mut check = |client: ClientConfig, want: &str| {
        let (at_server, at_client) = fails(&mut listener, client);
        assert_eq!(at_server.to_string(), want);
        assert!(
            matches!(&at_client, Error::Handshake(HandshakeError::Disconnected { reason, .. }) if reason == want),
            "{at_client:?}"
        );
    };
    check(ClientConfig { id: 9, ..base.clone() }, "no interface with id 9 on this socket");
    check(ClientConfig { mode: Mode::Ip, ..base.clone() }, "interface mode 1 does not match");
    check(ClientConfig { id: 1, ..base.clone() }, "a secret is required");
    let wrong = Some(Secret::new(b"wrong").unwrap());
    check(ClientConfig { id: 1, secret: wrong, ..base.clone() }, "incorrect secret");
    let wide = ClientConfig { id: 2, rx_queues: 2, ..base.clone() };
    check(wide, "too many rings: the limit is 1 each way");
    let huge = ClientConfig { log2_ring_size: 14, buffer_size: 2048, ..base.clone() };
    let (at_server, _) = fails(&mut listener, huge);
    assert!(at_server.to_string().contains("the limit is 67108864"), "{at_server}");

    // An unneeded secret is no mistake.
    let client = Client::connect(ClientConfig { secret: wrong, ..base.clone() }, Instant::now()).unwrap();
    let first = run(&mut listener, client);
    let (at_server, _) = fails(&mut listener, base.clone());
    assert!(matches!(at_server, HandshakeError::IdInUse(0)));
    drop(first.client);
    let (at_server, _) = fails(&mut listener, base.clone());
    assert!(matches!(at_server, HandshakeError::IdInUse(0)), "held until the server lets go");
    drop(first.server);
    let client = Client::connect(base, Instant::now()).unwrap();
    run(&mut listener, client);
}

#[test]
fn registrations() {
    let mut listener = listener();
    assert!(matches!(listener.add(InterfaceConfig::new(0, "x")), Err(crate::ConfigError::DuplicateId(0))));
    let punt = InterfaceConfig { mode: Mode::PuntInject, ..InterfaceConfig::new(1, "x") };
    assert!(matches!(listener.add(punt), Err(crate::ConfigError::Mode)));
    let client = Client::connect(config(&listener), Instant::now()).unwrap();
    let mut l = run(&mut listener, client);
    assert!(listener.remove(0) && !listener.remove(0));
    assert_eq!(l.server.control.process(), None, "a connection that is up stays");
    let (at_server, _) = {
        let config = config(&listener);
        fails(&mut listener, config)
    };
    assert!(matches!(at_server, HandshakeError::UnknownId(0)));
}

#[test]
fn users_can_be_refused() {
    let config_ = ListenerConfig { allowed_uids: vec![123_456_789], ..ListenerConfig::new(address()) };
    let mut listener = Listener::bind(config_, Instant::now()).unwrap();
    listener.add(InterfaceConfig::new(0, "x")).unwrap();
    let mut client = Client::connect(config(&listener), Instant::now()).unwrap();
    let events = listener.process(Instant::now());
    assert!(
        matches!(events[..], [ServerEvent::Failed { error: HandshakeError::UserNotAllowed(_), .. }]),
        "{events:?}"
    );
    assert!(client.process(Instant::now()).is_err());
}

#[test]
fn groups_can_be_admitted() {
    let config_ = listener_config();
    let gid = rustix::process::getegid().as_raw();
    let config_ = ListenerConfig { allowed_uids: vec![123_456_789], allowed_gids: vec![gid], ..config_ };
    let mut listener = Listener::bind(config_, Instant::now()).unwrap();
    listener.add(InterfaceConfig::new(0, "x")).unwrap();
    let client = Client::connect(config(&listener), Instant::now()).unwrap();
    run(&mut listener, client);
}

#[test]
fn an_abstract_socket_is_not_for_everybody() {
    let mut listener = Listener::bind(ListenerConfig::new(address()), Instant::now()).unwrap();
    let open = listener.add(InterfaceConfig::new(7, "x"));
    assert_eq!(open, Err(crate::ConfigError::Unprotected(7)));
    let secret = Some(Secret::new(b"s").unwrap());
    listener.add(InterfaceConfig { secret, ..InterfaceConfig::new(7, "x") }).unwrap();
}

#[test]
fn a_wrong_secret_costs_a_second() {
    let mut listener = listener();
    let (right, wrong) = (Secret::new(b"right").ok(), Secret::new(b"wrong").ok());
    listener.add(InterfaceConfig { secret: right, ..InterfaceConfig::new(1, "secret") }).unwrap();
    let base = config(&listener);
    let with = |secret| ClientConfig { id: 1, secret, ..base.clone() };
    let (error, _) = fails(&mut listener, with(wrong));
    assert!(matches!(error, HandshakeError::SecretWrong));
    let (error, _) = fails(&mut listener, with(wrong));
    assert!(matches!(error, HandshakeError::SecretPenalty), "no second guess");
    let (error, _) = fails(&mut listener, with(right));
    assert!(matches!(error, HandshakeError::SecretPenalty), "nor does the answer tell a right one");
    // Who needs no secret is not concerned.
    let client = Client::connect(base.clone(), Instant::now()).unwrap();
    run(&mut listener, client);
    let later = Instant::now() + Duration::from_secs(1);
    let mut client = Client::connect(with(right), later).unwrap();
    let limit = Instant::now() + Duration::from_secs(10);
    let mut up = None;
    while up.is_none() {
        assert!(Instant::now() < limit);
        for event in listener.process(later) {
            assert!(matches!(event, ServerEvent::Connected(_)), "{event:?}");
        }
        up = client.process(later).unwrap();
    }
}

#[test]
fn a_client_gives_up_in_time() {
    let listener = listener();
    let start = Instant::now();
    let mut client = Client::connect(config(&listener), start).unwrap();
    assert_eq!(client.deadline(), start + Duration::from_secs(1));
    assert!(client.process(start + Duration::from_millis(999)).unwrap().is_none());
    let late = client.process(client.deadline());
    assert!(matches!(late, Err(Error::Handshake(HandshakeError::Timeout))), "{late:?}");
}

#[test]
fn a_dead_peer_is_noticed() {
    let mut l = link(|_| {});
    // As a crash: the socket is closed without a word.
    rustix::net::shutdown(l.client.control.fd(), rustix::net::Shutdown::Both).unwrap();
    assert_eq!(l.server.control.process(), Some(&CloseReason::RemoteClosed));
    assert!(!l.server.rx[0].is_alive());
}

#[test]
fn socket_files_and_many_clients() {
    let dir = std::env::temp_dir().join(format!("memif-many-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let address = Address::Path(dir.join("memif.sock"));
    let mut listener = Listener::bind(ListenerConfig::new(address), Instant::now()).unwrap();
    let mut links = Vec::new();
    for id in 0..40 {
        listener.add(InterfaceConfig::new(id, format!("memif0/{id}"))).unwrap();
    }
    for id in 0..40 {
        let mut client = ClientConfig { id, log2_ring_size: 4, ..config(&listener) };
        client.buffer_size = 256;
        // More than the accepts that are allowed at once: the listener earns the rest with time.
        let client = Client::connect(client, Instant::now()).unwrap();
        links.push(run(&mut listener, client));
    }
    for (id, l) in links.iter_mut().enumerate() {
        send(&mut l.client.tx[0], &[bytes(id, 60)]);
    }
    for (id, l) in links.iter_mut().enumerate() {
        assert_eq!(drain(&mut l.server.rx[0]), [bytes(id, 60)]);
    }
    drop(listener);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "the socket file is gone");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Abstract names belong to a network namespace: with `netns_name` both ends meet in another one.
#[test]
fn sockets_in_another_network_namespace() {
    let (tell, told) = std::sync::mpsc::channel();
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // The namespace lives as long as this thread stays in it.
        scope.spawn(move || {
            // SAFETY: a plain system call; it changes nothing but the namespace of this thread.
            let rc = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            tell.send((rc == 0).then(rustix::thread::gettid)).unwrap();
            let _ = finished.recv();
        });
        let Some(tid) = told.recv().unwrap() else {
            eprintln!("not allowed to make a network namespace: nothing tested");
            return drop(finish);
        };
        let Address::Abstract { name, .. } = address() else { unreachable!() };
        let netns = format!("/proc/self/task/{}/ns/net", tid.as_raw_nonzero());
        let there = Address::parse(&format!("abstract:{name},netns_name={netns}")).unwrap();
        let mut listener =
            Listener::bind(ListenerConfig { address: there.clone(), ..listener_config() }, Instant::now())
                .unwrap();
        listener.add(InterfaceConfig::new(0, "x")).unwrap();
        let here = ClientConfig::new(Address::Abstract { name, netns: None }, 0);
        let nobody = Client::connect(here.clone(), Instant::now());
        assert!(matches!(nobody, Err(Error::Socket(crate::SocketError::NoListener(_)))), "{nobody:?}");
        let client =
            Client::connect(ClientConfig { address: there, ..here.clone() }, Instant::now()).unwrap();
        let mut l = run(&mut listener, client);
        send(&mut l.client.tx[0], &[bytes(1, 60)]);
        assert_eq!(drain(&mut l.server.rx[0]), [bytes(1, 60)]);
        let missing = Address::parse("@x,netns_name=/proc/self/none").unwrap();
        let error = Client::connect(ClientConfig { address: missing, ..here }, Instant::now());
        assert!(matches!(error, Err(Error::Socket(crate::SocketError::Netns { .. }))), "{error:?}");
        drop(finish);
    });
}

/// Every number at its greatest, one at a time: all of them together do not fit the 32 bits of an offset.
#[test]
fn the_largest_geometry() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, most).unwrap();
    let mut listener = listener();
    let wide = InterfaceConfig { max_mapped: Some(1 << 30), ..InterfaceConfig::new(1, "wide") };
    listener.add(wide).unwrap();
    let base = ClientConfig { id: 1, handshake: Duration::from_secs(10), ..config(&listener) };
    let queues = ClientConfig { rx_queues: 255, tx_queues: 255, log2_ring_size: 3, ..base.clone() };
    let slots = ClientConfig { log2_ring_size: 14, ..base.clone() };
    let buffers = ClientConfig { buffer_size: 65536, ..base };
    for client in [queues, slots, buffers] {
        let client = Client::connect(client, Instant::now()).unwrap();
        let mut l = run(&mut listener, client);
        for (i, (tx, rx)) in l.client.tx.iter_mut().zip(&mut l.server.rx).enumerate() {
            send(tx, &[bytes(i, 9216)]);
            assert_eq!(drain(rx), [bytes(i, 9216)]);
        }
        for (i, (tx, rx)) in l.server.tx.iter_mut().zip(&mut l.client.rx).enumerate() {
            send(tx, &[bytes(i, 9216)]);
            assert_eq!(drain(rx), [bytes(i, 9216)]);
        }
    }
}
