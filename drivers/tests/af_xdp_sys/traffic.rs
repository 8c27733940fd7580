//! Frames in, frames out, checksums.

use std::net::UdpSocket;

use rustix::io::Errno;
use wharf_drivers::af_xdp::{
    TX_METADATA_BYTES, TxKick, TxMetadata, XskSocket,
    program::{AttachMode, Steal, XdpProgram},
};
use wharf_engine::offload;

use crate::lab::{Lab, Pool, config, eventually, fill, ip, numbered, received, send, udp};

/// `w0` taken over: the program and a socket per queue, each with 64 buffers.
fn take_over(lab: &Lab, pool: &Pool, queues: u32, multi_buffer: bool) -> (XdpProgram, Vec<XskSocket>) {
    lab.inside(|| {
        let link = lab.link();
        assert_eq!(link.rx_queues, queues);
        let mut program = XdpProgram::attach(&link, AttachMode::Native, multi_buffer).expect("attaching");
        let sockets = (0..queues).map(|queue| {
            let mut config = config(&link, pool, queue);
            config.multi_buffer = multi_buffer;
            let mut socket = XskSocket::open(&config).expect("a socket");
            fill(&mut socket, queue * 64, 64);
            program.set_socket(queue, &socket).expect("an entry of the socket map");
            socket
        });
        let sockets = sockets.collect();
        program.steal(&Steal::Everything).expect("stealing");
        (program, sockets)
    })
}

#[test]
fn frames_arrive_on_every_queue() {
    let (lab, pool) = (Lab::new(2, 1500), Pool::new());
    let (_program, mut sockets) = take_over(&lab, &pool, 2, false);
    let peer = lab.peer();
    // As many flows as that: the kernel spreads them over both queues.
    let sent: Vec<_> = (0..64u16)
        .map(|flow| udp([2; 6], [10, 0, 0, 2], [10, 0, 0, 1], (1000 + flow, 9), &flow.to_be_bytes()))
        .collect();
    for frame in &sent {
        peer.send(frame);
    }
    let mut got = [Vec::new(), Vec::new()];
    eventually("64 frames", || {
        for (got, socket) in got.iter_mut().zip(&mut sockets) {
            got.extend(received(socket, &pool));
        }
        (got[0].len() + got[1].len() >= 64).then_some(())
    });
    assert!(!got[0].is_empty() && !got[1].is_empty(), "{} and {}", got[0].len(), got[1].len());
    let mut all = got.concat();
    all.sort();
    let mut expected = sent;
    expected.sort();
    assert_eq!(all, expected);
    assert_eq!(sockets.iter().map(|socket| socket.rx.held()).sum::<u32>(), 64);
    assert!(sockets.iter().all(|socket| socket.rx.invalid() == 0));
}

#[test]
fn frames_leave_and_their_buffers_come_back() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let mut socket = lab.open(&pool, 0).expect("a socket");
    let peer = lab.peer();
    let mut slots = socket.tx.send(100);
    for buffer in 0..100 {
        assert!(slots.push(&pool.frame(buffer, &numbered(buffer, 60 + buffer as usize))));
    }
    drop(slots);
    assert!(socket.tx.needs_wakeup());
    let mut back = Vec::new();
    assert_eq!(socket.tx.kick(|buffer| back.push(buffer)), TxKick::Done);
    for number in 0..100 {
        assert_eq!(peer.wait(), numbered(number, 60 + number as usize));
    }
    eventually("all buffers back", || {
        back.extend(socket.tx.completed(256));
        (back.len() == 100).then_some(())
    });
    back.sort();
    assert_eq!(back, (0..100).collect::<Vec<_>>());
    assert_eq!((socket.tx.held(), socket.tx.unsent(), socket.tx.invalid()), (0, 0, 0));
}

#[test]
fn received_frame_goes_out_again_from_its_own_buffer() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let (_program, mut sockets) = take_over(&lab, &pool, 1, false);
    let (socket, peer) = (&mut sockets[0], lab.peer());
    let frame = numbered(7, 200);
    peer.send(&frame);
    let got = eventually("a frame", || socket.rx.receive(1).next());
    assert_eq!((got.offset, got.len, got.continues), (320, 200, false));
    let mut answer = frame.clone();
    answer[6] = 0xaa;
    send(socket, &pool.frame(got.buffer, &answer));
    assert_eq!(socket.tx.kick(drop), TxKick::Done);
    // The peer's own socket sees what it sent, too.
    eventually("the answer", || (peer.wait() == answer).then_some(()));
    assert_eq!(eventually("the buffer", || socket.tx.completed(1).next()), got.buffer);
}

#[test]
fn kernel_finishes_the_checksum_asked_for() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    ip(&format!("-n {} addr add 10.0.0.2/24 dev p0", lab.theirs));
    let mac = lab.outside(|| {
        let mut links = wharf_drivers::af_xdp::link::Links::open().expect("netlink");
        links.by_name("p0").expect("p0").mac
    });
    let listener = lab.outside(|| UdpSocket::bind("10.0.0.2:9").expect("a UDP socket"));
    listener.set_nonblocking(true).expect("non-blocking");
    let mut socket = lab.open(&pool, 0).expect("a socket");
    assert!(socket.capabilities.tx_checksum && !socket.capabilities.zero_copy);

    let datagram = |payload| udp(mac, [10, 0, 0, 1], [10, 0, 0, 2], (1000, 9), payload);
    // Left as it is, the receiver drops it.
    send(&mut socket, &pool.frame(0, &datagram(b"untouched")));
    // Asked of the kernel.
    let frame = datagram(b"asked of the kernel");
    let checksum = offload::find_partial(&frame).expect("a partial checksum");
    let mut headroom = [0; TX_METADATA_BYTES];
    assert!(TxMetadata { checksum }.write(&mut headroom, frame.len()));
    let mut sent = pool.frame(1, &frame);
    pool.write(1, 320 - TX_METADATA_BYTES as u16, &headroom);
    sent.metadata = true;
    send(&mut socket, &sent);
    // Done in software.
    let mut frame = datagram(b"in software");
    let checksum = offload::find_partial(&frame).expect("a partial checksum");
    assert!(offload::finish(&mut frame, checksum));
    send(&mut socket, &pool.frame(2, &frame));

    assert_eq!(socket.tx.kick(drop), TxKick::Done);
    let mut payload = [0; 64];
    let mut next = || {
        let len = eventually("a datagram", || listener.recv(&mut payload).ok());
        String::from_utf8_lossy(&payload[..len]).into_owned()
    };
    assert_eq!(next(), "asked of the kernel");
    assert_eq!(next(), "in software");
}

#[test]
fn wrong_metadata_would_stop_the_queue() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let mut socket = lab.open(&pool, 0).expect("a socket");
    let frame = numbered(1, 60);
    let checksum = offload::PartialChecksum { start: 50, offset: 16, end: 60 };
    let mut headroom = [0; TX_METADATA_BYTES];
    assert!(!TxMetadata { checksum }.write(&mut headroom, frame.len()));
    let mut wrong = pool.frame(0, &frame);
    pool.write(0, 320 - TX_METADATA_BYTES as u16, &TxMetadata { checksum }.to_bytes());
    wrong.metadata = true;
    send(&mut socket, &wrong);
    send(&mut socket, &pool.frame(1, &frame));
    for _ in 0..3 {
        assert_eq!(socket.tx.kick(drop), TxKick::Failed(Errno::INVAL));
        assert_eq!(socket.tx.unsent(), 2);
    }
}

#[test]
fn kernel_leaves_partial_checksums_on_a_veth() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    ip(&format!("-n {} addr add 10.0.0.2/24 dev p0", lab.theirs));
    ip(&format!("-n {} neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev p0", lab.theirs));
    let (_program, mut sockets) = take_over(&lab, &pool, 1, false);
    lab.outside(|| {
        let sender = UdpSocket::bind("10.0.0.2:9").expect("a UDP socket");
        sender.send_to(b"partial", "10.0.0.1:1000").expect("sending");
    });
    let mut frame = eventually("the datagram", || {
        received(&mut sockets[0], &pool).into_iter().find(|frame| frame.ends_with(b"partial"))
    });
    let checksum = offload::find_partial(&frame).expect("a partial checksum");
    assert_eq!((checksum.start, checksum.offset, usize::from(checksum.end)), (34, 6, frame.len()));
    assert!(offload::finish(&mut frame, checksum));
    assert_eq!(offload::find_partial(&frame), None);
}

#[test]
fn largest_frame_fills_a_buffer_and_a_larger_one_is_counted() {
    let (lab, pool) = (Lab::new(1, 3000), Pool::new());
    let (_program, mut sockets) = take_over(&lab, &pool, 1, false);
    let (socket, peer) = (&mut sockets[0], lab.peer());
    let largest = pool.area().max_rx_frame() as usize;
    peer.send(&numbered(1, largest + 1));
    peer.send(&numbered(2, largest));
    let got = eventually("a frame", || received(socket, &pool).pop());
    assert_eq!(got, numbered(2, largest));
    let statistics = socket.monitor.statistics().expect("open");
    assert_eq!(statistics.rx_dropped, 1);
}

#[test]
fn larger_frames_arrive_in_pieces_when_asked_for() {
    let (lab, pool) = (Lab::new(1, 9000), Pool::new());
    let (_program, mut sockets) = take_over(&lab, &pool, 1, true);
    let (socket, peer) = (&mut sockets[0], lab.peer());
    peer.send(&numbered(1, 5000));
    let mut pieces = Vec::new();
    eventually("all pieces", || {
        pieces.extend(socket.rx.receive(64));
        pieces.last().is_some_and(|piece| !piece.continues).then_some(())
    });
    assert_eq!(pieces.iter().map(|piece| piece.len).collect::<Vec<_>>(), [2048, 2048, 904]);
    let whole: Vec<_> =
        pieces.iter().flat_map(|piece| pool.read(piece.buffer, piece.offset, piece.len)).collect();
    assert_eq!(whole, numbered(1, 5000));

    let mut slots = socket.tx.send(3);
    for (i, piece) in whole.chunks(2000).enumerate() {
        let mut frame = pool.frame(100 + i as u32, piece);
        frame.continues = i < 2;
        assert!(slots.push(&frame));
    }
    drop(slots);
    while peer.next().is_some() {}
    assert_eq!(socket.tx.kick(drop), TxKick::Done);
    assert_eq!(peer.wait(), whole);
}

#[test]
fn an_empty_fill_ring_loses_frames_and_says_so() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let (_program, mut sockets) = take_over(&lab, &pool, 1, false);
    let (socket, peer) = (&mut sockets[0], lab.peer());
    for number in 0..70 {
        peer.send(&numbered(number, 60));
    }
    let statistics = eventually("the loss", || {
        let statistics = socket.monitor.statistics().expect("open");
        (statistics.rx_fill_empty + statistics.rx_dropped >= 6).then_some(statistics)
    });
    assert_eq!(received(socket, &pool).len(), 64);
    assert_eq!(statistics.rx_ring_full, 0);
    assert_eq!((socket.rx.held(), socket.rx.unfilled()), (0, 0));
    fill(socket, 64, 8);
    peer.send(&numbered(70, 60));
    assert_eq!(eventually("a frame", || received(socket, &pool).pop()), numbered(70, 60));
}

#[test]
fn tagged_frames_keep_their_tags() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let (_program, mut sockets) = take_over(&lab, &pool, 1, false);
    let (socket, peer) = (&mut sockets[0], lab.peer());
    for tags in [&[0x81, 0x00, 0, 7][..], &[0x88, 0xa8, 0, 8, 0x81, 0x00, 0, 7]] {
        let mut frame = numbered(1, 60);
        frame.splice(12..12, tags.iter().copied());
        peer.send(&frame);
        assert_eq!(eventually("a tagged frame", || received(socket, &pool).pop()), frame);
    }
}
