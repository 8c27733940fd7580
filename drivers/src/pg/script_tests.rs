use super::*;

fn parse(text: &str) -> StreamScript {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

fn says(text: &str) -> String {
    text.parse::<StreamScript>().unwrap_err().to_string()
}

fn template(data: &str) -> Template {
    match parse(&format!("name x interface pg0 data {{ {data} }}")).source {
        ScriptSource::Data(template) => template,
        ScriptSource::Pcap(_) => unreachable!(),
    }
}

fn build(template: &Template, n: u64) -> Vec<u8> {
    let mut out = [0; DATA_SIZE];
    let len = template.build(n, &mut out);
    out[..len].to_vec()
}

#[test]
fn the_block_of_vpps_examples() {
    let script = parse(
        "new { name X limit 100 size 64-64 interface pg3 node ethernet-input worker 2 rate 1e6 maxframe 16
           data { IP4: 1.2.3 -> 4.5.6  UDP: 1.1.1.1 -> 2.2.2.2  UDP: 1234 -> 2345  incrementing 30 } }",
    );
    assert_eq!((script.name.as_str(), script.interface.as_str()), ("X", "pg3"));
    assert_eq!((script.limit, script.worker, script.rate, script.max_frame), (Some(100), Some(2), 1e6, 16));
    let config = script.into_config(PgMode::Ethernet).unwrap();
    let Source::Template(template) = config.source else { panic!() };
    let packet = build(&template, 7);
    assert_eq!(packet.len(), 64);
    assert_eq!(packet[..14], [0, 4, 0, 5, 0, 6, 0, 1, 0, 2, 0, 3, 8, 0]);
    assert_eq!(packet[14..24], [0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17]);
    assert_eq!(packet[26..34], [1, 1, 1, 1, 2, 2, 2, 2]);
    assert_eq!(packet[34..40], [0x04, 0xd2, 0x09, 0x29, 0, 30]);
    assert_eq!(packet[42..64], (0..22).collect::<Vec<u8>>());
    // Checked by hand: 0x4500 + 0x32 + 0x4011 + 0x0101 * 2 + 0x0202 * 2 = 0x8b49 -> ~.
    assert_eq!(packet[24..26], (!0x8b49u16).to_be_bytes());
}

#[test]
fn ranges_increment_or_are_random() {
    let t = template(
        "IP4: 1.2.3 -> 00:04:00:05:00:06 UDP: 10.0.0.1 - 10.0.0.3 -> 10.9.0.0-10.9.255.255 UDP: 1+9 -> 5 + 6",
    );
    let sources: Vec<u8> = (0..5).map(|n| build(&t, n)[29]).collect();
    assert_eq!(sources, [1, 2, 3, 1, 2]);
    assert_eq!(build(&t, 300)[30..34], [10, 9, 1, 44]);
    let ports: Vec<u8> = (0..100).map(|n| build(&t, n)[35]).collect();
    assert!(ports.iter().all(|p| (1..=9).contains(p)));
    assert!(ports.windows(2).any(|w| w[1] != w[0] % 9 + 1), "random, not counted");
    assert!((0..100).all(|n| [5, 6].contains(&build(&t, n)[37])));
}

#[test]
fn other_headers() {
    let t = template(
        "IP6: 1.2.3 -> 4.5.6 vlan 10 TCP: 2001:db8::1 -> 2001:db8::2 - 2001:db8::9 ttl 9 TCP: 1 -> 80",
    );
    let packet = build(&t, 1);
    assert_eq!(packet[12..18], [0x81, 0, 0, 10, 0x86, 0xdd]);
    assert_eq!((packet[22..24].to_vec(), packet[24], packet[25]), (vec![0, 20], 6, 9));
    assert_eq!((packet.len(), packet[57]), (78, 3));
    assert_eq!(packet[70..72], [0x50, 2]);
    let t = template("0x88cc: 1.2.3 -> 4.5.6 hex 0x0102ff incrementing 3");
    assert_eq!(build(&t, 0)[12..], [0x88, 0xcc, 1, 2, 0xff, 0, 1, 2]);
    let t = template("IP4: 1.2.3 -> 4.5.6 89: 1.1.1.1 -> 2.2.2.2 tos 192 incrementing 2");
    assert_eq!((build(&t, 0)[15], build(&t, 0)[23], build(&t, 0).len()), (192, 89, 36));
    assert_eq!(build(&template("hex 0xdeadbeef"), 0), [0xde, 0xad, 0xbe, 0xef]);
}

#[test]
fn data_for_an_ip_node_starts_with_the_ip_header() {
    let script = parse("name x interface pg0 data { UDP: 1.1.1.1 -> 2.2.2.2 UDP: 1 -> 2 } node ip4-input");
    let error = script.clone().into_config(PgMode::Ethernet).unwrap_err().to_string();
    assert_eq!(error, "packets of pg0 go to ethernet-input, not to ip4-input");
    let Source::Template(template) = script.into_config(PgMode::Ip4).unwrap().source else { panic!() };
    assert_eq!(build(&template, 0)[..4], [0x45, 0, 0, 28]);
}

#[test]
fn a_file_is_read_when_the_stream_is_made() {
    let script = parse("{ name x interface pg0 pcap /nonexistent/in.pcap }");
    assert_eq!(script.source, ScriptSource::Pcap("/nonexistent/in.pcap".into()));
    let error = script.into_config(PgMode::Ethernet).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/in.pcap: "), "{error}");
}

#[test]
fn errors_name_the_word() {
    let data = |data: &str| says(&format!("name x interface pg0 data {{ {data} }}"));
    assert_eq!(says("{ name x colour red }"), "`colour': unknown word");
    assert_eq!(says("{ name x"), "`{': not closed");
    assert_eq!(says("{ name x interface pg0 pcap a } b"), "`b': nothing may follow the block");
    assert_eq!(says("interface pg0 pcap a"), "`name': a stream needs one");
    assert_eq!(says("name x pcap a"), "`interface': a stream needs one");
    assert_eq!(says("name x interface pg0"), "`data': a stream needs data or a pcap file");
    assert_eq!(says("name x interface"), "`interface': an interface must follow");
    assert_eq!(says("limit -1"), "`-1': not a number of packets");
    assert_eq!(says("rate fast"), "`fast': not a number of packets per second");
    assert_eq!(says("rate NaN"), "`NaN': not a number of packets per second");
    assert_eq!(says("worker 70000"), "`70000': not a worker's number");
    assert_eq!(says("size 64-2049"), "`size': 64-2049 is not within 1 to 2048, the least first");
    assert_eq!(says("size 64-x"), "`x': not a number of bytes");
    assert_eq!(
        says("name x interface pg0 pcap a data { hex 0x00 }"),
        "`pcap': a stream has either data or a file"
    );
    assert_eq!(says("name x interface pg0 pcap a size 64"), "`size': the packets of a file have theirs");
    assert_eq!(says("data { IP4: "), "`data': its block is not closed");
    assert_eq!(data(""), "`data': it is empty");
    assert_eq!(data("IP5: 1.2.3 -> 4.5.6"), "`IP5:': not an Ethernet type (IP4:, IP6:, ARP: or 0x...:)");
    assert!(data("IP4: 1.2 -> 4.5.6").starts_with("`1.2': not an Ethernet address"));
    assert_eq!(data("IP4: 1.2.3 4.5.6"), "`4.5.6': `->' expected");
    assert_eq!(data("IP4: 1.2.3 ->"), "`->': the destination address must follow");
    let ip = |rest: &str| data(&format!("IP4: 1.2.3 -> 4.5.6 {rest}"));
    assert!(ip("SCTP: 1.1.1.1 -> 2.2.2.2").starts_with("`SCTP:': not an IP protocol"));
    assert_eq!(ip("UDP: ::1 -> 2.2.2.2"), "`::1': not an IPv4 address");
    assert_eq!(ip("UDP: 1.1.1.1 -> 2.2.2.9 - 2.2.2.2"), "`2.2.2.2': the end of the range is below its start");
    assert_eq!(ip("UDP: 1.1.1.1 -> 2.2.2.2 UDP: 1 -> 65536"), "`65536': not a port");
    assert_eq!(ip("UDP: 1.1.1.1 -> 2.2.2.2 TCP: 1 -> 2"), "`TCP:': unknown word in data");
    assert_eq!(ip("UDP: 1.1.1.1 -> 2.2.2.2 ttl 256"), "`256': not a number up to 255");
    assert_eq!(ip("UDP: 1.1.1.1 -> 2.2.2.2 hex 0x1"), "`0x1': not bytes as 0x...");
    assert_eq!(ip("incrementing 2040"), "`incrementing': a packet has at most 2048 bytes");
    let small =
        says("name x interface pg0 size 40 data { IP4: 1.2.3 -> 4.5.6 UDP: 1.1.1.1 -> 2.2.2.2 UDP: 1 -> 2 }");
    assert_eq!(small, "`size': packet size 40 is less than the 42 bytes of headers");
}
