//! A C program against the header and both libraries; the header against the source.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use wharf_memif::{Event, Mode, Options, Packet, Role};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// The directory with the libraries, which `cargo test` does not put in place.
fn libraries() -> PathBuf {
    let profile = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "-p", "memif-capi", "--lib", "--target-dir"]);
    cargo.arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    run(&mut cargo);
    profile
}

#[test]
fn a_c_program() {
    let libraries = libraries();
    let dir = std::env::temp_dir().join(format!("memif-capi-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (name, library) in [("static", "libwharf_memif.a"), ("shared", "libwharf_memif.so")] {
        let program = dir.join(name);
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I"]).arg(here().join("include"));
        cc.arg(here().join("tests/echo.c")).arg(libraries.join(library));
        run(cc.args(["-lpthread", "-ldl", "-lm", "-o"]).arg(&program));
        let mut echo = Command::new(&program);
        echo.env("LD_LIBRARY_PATH", &libraries).arg(dir.join("socket"));
        let said = run(&mut echo);
        assert!(said.starts_with("1000 packets"), "{said}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(here().join("include/wharf_memif.h")).unwrap();
    let code = header.lines().filter(|line| !line.trim_start().starts_with("//"));
    let words = code.filter_map(|line| line.split_once('(')).map(|(before, _)| before);
    let names = words.filter_map(|before| before.rsplit([' ', '*']).next());
    names.filter(|name| name.starts_with("wharf_memif_")).map(str::to_owned).collect()
}

/// What the libraries export is what the header declares: no more, and no name that is libmemif's.
#[test]
fn the_libraries_export_what_the_header_declares() {
    let (libraries, declared) = (libraries(), declared());
    assert!(declared.len() > 10);
    let exported = |arguments: &[&str], library: &str| -> BTreeSet<String> {
        let symbols = run(Command::new("nm").args(arguments).arg(libraries.join(library)));
        let names = symbols.lines().filter_map(|line| line.rsplit(' ').next());
        names.filter(|name| !name.is_empty() && !name.ends_with(':')).map(str::to_owned).collect()
    };
    assert_eq!(exported(&["--dynamic", "--defined-only"], "libwharf_memif.so"), declared);
    // In a static library the Rust code's own symbols are there too.
    let all = exported(&["--extern-only", "--defined-only", "--quiet"], "libwharf_memif.a");
    let ours = |name: &&String| name.starts_with("wharf_") || name.starts_with("memif_");
    assert_eq!(all.iter().filter(ours).cloned().collect::<BTreeSet<_>>(), declared);
}

/// A type of the source, as the header has it.
fn c_type(rust: &str) -> String {
    if let Some(to) = rust.strip_prefix("*const ") {
        return format!("const {} *", c_type(to));
    }
    if let Some(to) = rust.strip_prefix("*mut ") {
        return format!("{} *", c_type(to));
    }
    match rust {
        "" => "void",
        "bool" => "bool",
        "u8" => "uint8_t",
        "u16" => "uint16_t",
        "u32" => "uint32_t",
        "usize" => "size_t",
        "c_int" => "int",
        "c_char" => "char",
        "Options" => "wharf_memif_options",
        "Packet" => "wharf_memif_packet",
        "Port" => "wharf_memif_port",
        "Event" => "wharf_memif_event",
        other => panic!("what is {other} in C?"),
    }
    .to_owned()
}

fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Layouts, constants and signatures of the header are those of the source, as a C compiler sees it.
#[test]
fn the_header_says_what_the_source_says() {
    let mut c = String::from("#include \"wharf_memif.h\"\n");
    let mut same = |what: &str, value: usize| {
        c += &format!("_Static_assert({what} == {value}, \"{what}\");\n");
    };
    macro_rules! layout {
        ($type:ident: $($field:ident)*) => {
            let name = c_type(stringify!($type));
            same(&format!("sizeof({name})"), size_of::<$type>());
            $(
                let field = stringify!($field);
                same(&format!("offsetof({name}, {field})"), offset_of!($type, $field));
                same(&format!("sizeof((({name} *)0)->{field})"), size_of_field(|s: &$type| &s.$field));
            )*
        };
    }
    layout!(Options: socket id role mode app_name secret rx_queues tx_queues log2_ring_size buffer_size);
    layout!(Packet: data size len);
    for (constant, value) in [
        ("EVENT_NONE", Event::None as usize),
        ("EVENT_UP", Event::Up as usize),
        ("EVENT_DOWN", Event::Down as usize),
        ("EVENT_FAILED", Event::Failed as usize),
        ("ROLE_CLIENT", Role::Client as usize),
        ("ROLE_SERVER", Role::Server as usize),
        ("MODE_ETHERNET", Mode::Ethernet as usize),
        ("MODE_IP", Mode::Ip as usize),
    ] {
        same(&format!("WHARF_MEMIF_{constant}"), value);
    }
    // A second declaration that differs is an error.
    let source = std::fs::read_to_string(here().join("src/lib.rs")).unwrap();
    let mut functions = BTreeSet::new();
    for function in source.split("extern \"C\" fn ").skip(1) {
        let (name, rest) = function.split_once('(').unwrap();
        let (parameters, rest) = rest.split_once(')').unwrap();
        let result = rest.split_once('{').unwrap().0.trim().trim_start_matches("-> ");
        let parameters: Vec<String> = parameters
            .split(',')
            .filter_map(|parameter| parameter.split_once(": "))
            .map(|(_, rust)| c_type(rust.trim()))
            .collect();
        let parameters = if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") };
        c += &format!("{} {name}({parameters});\n", c_type(result));
        functions.insert(name.to_owned());
    }
    assert_eq!(functions, declared());
    let file = std::env::temp_dir().join(format!("memif-capi-{}.c", std::process::id()));
    std::fs::write(&file, &c).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"]).arg(here().join("include"));
    run(cc.arg(&file));
    std::fs::remove_file(&file).unwrap();
}

/// Where cbindgen is, the header must be what it makes.
#[test]
fn the_header_is_what_the_source_says() {
    if Command::new("cbindgen").arg("--version").output().is_err() {
        eprintln!("cbindgen is not installed: nothing tested");
        return;
    }
    let made = std::env::temp_dir().join(format!("wharf_memif-{}.h", std::process::id()));
    run(Command::new(here().join("header.sh")).arg(&made));
    let same = std::fs::read(&made).unwrap() == std::fs::read(here().join("include/wharf_memif.h")).unwrap();
    std::fs::remove_file(&made).unwrap();
    assert!(same, "the header is not what the source says: run header.sh");
}
