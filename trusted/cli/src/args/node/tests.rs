//! Names of images against what the programs were seen to say and print.
use super::*;
use crate::args::object::Objects;
use crate::args::stop::Complaint;
use crate::profile::Profile;

fn profile(version: &str) -> Profile {
    Profile::parse(version).unwrap()
}

fn told(complaint: &Complaint) -> String {
    String::from_utf8(complaint.lines("q").join(&b'\n')).unwrap()
}

/// Builds, checks every node from below, and tells the name or the complaint.
fn answer(named: &Named<'_>, version: &str) -> String {
    fn check(node: &Node, profile: &Profile) -> Result<(), Complaint> {
        for (_, child) in &node.children {
            check(child, profile)?;
        }
        node.check_values(profile, &Objects::default())?;
        node.check_known(profile, false)
    }
    let profile = profile(version);
    let done = describe(named, &profile).and_then(|described| {
        check(&described.node, &profile).map_err(|c| c.not_opened(named.name)).map(|()| described)
    });
    match done {
        Ok(described) => String::from_utf8(described.node.display_name()).unwrap(),
        Err(complaint) => {
            told(&complaint).replace(&format!("Could not open '{}': ", String::from_utf8_lossy(named.name)), "")
        }
    }
}

fn plain(word: &str, version: &str) -> String {
    answer(&Named::plain(word.as_bytes()), version)
}

fn listed(word: &str, version: &str) -> String {
    answer(&Named { image_opts: true, ..Named::plain(word.as_bytes()) }, version)
}

#[test]
fn plain_words() {
    for (word, want) in [
        ("a.img", "a.img"),
        ("file:a.img", "a.img"),
        ("file:///a", "///a"),
        ("./file:x.img", "./file:x.img"),
        ("/a:b", "/a:b"),
        ("a/b:c", "a/b:c"),
        ("host_device:/dev/null", "/dev/null"),
        ("null-co://", "null-co://"),
        ("blkdebug::a.img", "blkdebug::a.img"),
        ("null-co:foo", "q: The only allowed filename for this driver is 'null-co://'"),
        ("", "q: The 'file' block driver requires a file name"),
        ("file:", "q: The 'file' block driver requires a file name"),
        ("a.b:c", "q: Unknown protocol 'a.b'"),
        (":x", "q: Unknown protocol ''"),
        ("qcow2:x", "q: Unknown protocol 'qcow2'"),
    ] {
        assert_eq!(plain(word, "10.2"), want, "{word}");
    }
    let format = |format: &'static str, name: &'static str| {
        answer(&Named { format: Some(format.as_bytes()), ..Named::plain(name.as_bytes()) }, "10.2")
    };
    assert_eq!(format("nosuch", "nosuch:x"), "q: Unknown driver 'nosuch'");
    assert_eq!(format("", "x"), "q: Unknown driver ''");
    assert_eq!(format("file", "file:x"), "x");
    assert_eq!(format("file", "a:x"), "a:x");
    assert_eq!(format("null-co", "x"), "q: The only allowed filename for this driver is 'null-co://'");
    assert_eq!(format("throttle", "x"), "q: Please specify a throttle group");
    assert_eq!(format("raw", "json:{\"driver\":\"nosuch\"}"), "q: A block device must be specified for \"file\"");
}

#[test]
fn modules_that_are_not_there() {
    const OWN: &str = "qemu: module block-block-curl not found, do you want to install qemu-block-extra package?\n";
    const NAMED: &str = "q: Unable to load module curl. Perhaps you want to install qemu-block-extra or \
                         qemu-block-supplemental package?\n";
    for (version, want) in [
        ("5.2", "q: Unknown protocol 'https'".to_owned()),
        ("7.2", format!("{OWN}q: Unknown protocol 'https'")),
        ("8.2.2", "q: Unable to load block driver curl. Perhaps you want to install qemu-block-extra package?".into()),
        ("10.2", format!("{NAMED}q: Must specify either driver or file")),
        ("10.0.2-upstream", "q: Unknown protocol 'https'".into()),
    ] {
        assert_eq!(plain("https://x/y", version), want, "{version}");
    }
    assert_eq!(plain("gluster://x", "11.1"), "q: Unknown protocol 'gluster'");
    assert_eq!(listed("driver=http,url=a", "10.2"), format!("{NAMED}q: Unknown driver 'http'"));
}

/// A list of options, and the name or the refusal that follows from it.
const LISTS: &[(&str, &str)] = &[
    ("", "q: Must specify either driver or file"),
    ("=x", "q: Must specify either driver or file"),
    ("driver=", "q: Unknown driver ''"),
    ("driver=raw,", "q: A block device must be specified for \"file\""),
    ("driver=raw,,x=1", "q: Unknown driver 'raw,x=1'"),
    ("x.img", "q: Cannot find device='x.img' nor node-name='x.img'"),
    ("filename=x", "q: Must specify either driver or file"),
    ("read-only=x", "q: Must specify either driver or file"),
    ("driver=nosuch,read-only=x", "q: Unknown driver 'nosuch'"),
    (
        "driver=raw,file=x,file.filename=y",
        "q: Cannot reference an existing block device with additional options or a new filename",
    ),
    ("driver=raw,file.filename=a,id=a", "q: Block format 'raw' does not support the option 'id'"),
    ("file.filename=a", "a"),
    ("driver=file,filename=a", "a"),
    ("driver=raw,file.filename=a,file.filename=b", "b"),
    ("driver=raw,file.filename=nbd:localhost:1", "nbd:localhost:1"),
    (
        "driver=raw,offset=4k,file.filename=a",
        r#"json:{"offset": "4k", "driver": "raw", "file": {"driver": "file", "filename": "a"}}"#,
    ),
    ("driver=null-co,size=1M", r#"json:{"driver": "null-co", "size": "1M"}"#),
    ("driver=null-co,size=1M,read-zeroes=on", r#"json:{"read-zeroes": "on", "driver": "null-co", "size": "1M"}"#),
    ("driver=null-aio", "null-aio://"),
    ("driver=null-co,filename=x", "q: Block protocol 'null-co' doesn't support the option 'filename'"),
    ("driver=blkdebug", "q: A block device must be specified for \"image\""),
    ("driver=blkdebug,image.filename=a", "blkdebug::a"),
    ("driver=qcow2,file.driver=blkdebug,file.image.filename=q", "blkdebug::q"),
    ("driver=host_device", "q: The 'host_device' block driver requires a file name"),
    ("driver=snapshot-access,file.filename=a", "a"),
    (
        "driver=preallocate,file.filename=a",
        r#"json:{"driver": "preallocate", "file": {"driver": "file", "filename": "a"}}"#,
    ),
    (
        "file.driver=raw,file.file.filename=a",
        r#"json:{"driver": "raw", "file": {"driver": "raw", "file": {"driver": "file", "filename": "a"}}}"#,
    ),
    (
        "driver=luks,key-secret=sec0,file.filename=a",
        r#"json:{"driver": "luks", "file": {"driver": "file", "filename": "a"}, "key-secret": "sec0"}"#,
    ),
    (
        "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename=a",
        r#"json:{"encrypt.key-secret": "s", "driver": "qcow2", "file": {"driver": "file", "filename": "a"}}"#,
    ),
    ("driver=throttle,file.filename=a", "q: Please specify a throttle group"),
    ("driver=throttle,throttle-group=t,file.filename=a", "q: Throttle group 't' does not exist"),
    ("driver=qcow2,file.filename=a,lazy-refcounts=x", "q: Parameter 'lazy-refcounts' expects 'on' or 'off'"),
    ("driver=qcow2,file.filename=a,cache-clean-interval=x", "q: Parameter 'cache-clean-interval' expects a number"),
    ("driver=qcow2,file.filename=a,file.nosuch.x=1", "q: Block protocol 'file' doesn't support the option 'nosuch.x'"),
    (
        "driver=qcow2,file.filename=a,nosuch.a=1,nosuch.b=2",
        "q: Block format 'qcow2' does not support the option 'nosuch.a'",
    ),
    ("driver=qcow2,file.filename=a,a=1,b=2,c=3,zz=4", "q: Block format 'qcow2' does not support the option 'a'"),
    ("driver=raw,backing=x,file.filename=a", "q: Block format 'raw' does not support the option 'backing'"),
    (
        "driver=qcow2,backing.driver=qcow2,backing.file.filename=b,file.filename=a",
        "q: Block format 'qcow2' does not support the option 'backing.driver'",
    ),
    ("driver=raw,file.filename=a,detect-zeroes=x,discard=y,offset=abc,node-name=1", "q: Invalid discard option"),
    (
        "driver=raw,file.filename=a,read-only=x,file.read-only=y,cache.direct=z",
        "q: Parameter 'cache.direct' expects 'on' or 'off'",
    ),
    ("driver=raw,file.filename=a,node-name=0n", "q: Invalid node-name: '0n'"),
    ("driver=raw,file.filename=a,file.aio=x", "q: invalid parameter value: x"),
    ("driver=raw,file.filename=a,offset=-1", "q: Value '-1' is out of range for parameter 'offset'"),
];

#[test]
fn lists_of_options() {
    for (word, want) in LISTS {
        assert_eq!(listed(word, "10.2"), *want, "{word}");
    }
    assert_eq!(listed("x.img", "5.2"), "q: Cannot find device=x.img nor node_name=x.img");
    let id = listed("driver=raw,id=1,file.filename=a", "10.2");
    assert!(id.starts_with("q: Parameter 'id' expects an identifier\nIdentifiers consist"), "{id}");
}

#[test]
fn json_names() {
    for (word, want) in [
        ("json:", "q: Could not parse the JSON options: Expecting a JSON value"),
        ("json:[]", "q: Invalid JSON object given"),
        ("json:{}", "q: Must specify either driver or file"),
        (r#"json:{"driver":1}"#, "q: Must specify either driver or file"),
        (r#"json:{"driver":"raw","file":null}"#, "q: A block device must be specified for \"file\""),
        (r#"json:{"driver":"raw","file":["a"]}"#, "q: Must specify either driver or file"),
        (r#"json:{"driver":"qcow2","file":{}}"#, "q: A block device must be specified for \"file\""),
        (r#"json:{"driver":"file","nosuch":1}"#, "q: The 'file' block driver requires a file name"),
        (r#"json:{"driver":"file","filename":1}"#, "q: The 'file' block driver requires a file name"),
        (r#"json:{"file":{"driver":"nosuch"}}"#, "q: Unknown driver 'nosuch'"),
        (
            r#"json:{"driver":"raw","read-only":"maybe","file.filename":"a"}"#,
            "q: Parameter 'read-only' expects 'on' or 'off'",
        ),
        (r#"json:{"driver":"raw","file":{"driver":"file","filename":"a","locking":"off"}}"#, "a"),
        (r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"a"},"file.filename":"x"}"#, "a"),
        (r#"json:{"driver":"qcow2","file.filename":"x","file":{"driver":"file","filename":"a"}}"#, "a"),
        (
            r#"json:{"driver":"raw","offset":65536,"size":65536,"file.filename":"a"}"#,
            r#"json:{"offset": 65536, "driver": "raw", "size": 65536, "file": {"driver": "file", "filename": "a"}}"#,
        ),
        (
            r#"json:{"driver":"raw","file":{"driver":"null-co","size":65536}}"#,
            r#"json:{"driver": "raw", "file": {"driver": "null-co", "size": 65536}}"#,
        ),
        (r#"json:{"driver":"raw","file":{"driver":"null-co","latency-ns":5}}"#, "null-co://"),
        (
            r#"json:{"driver":"raw","file":{"driver":"blkdebug","image":{"driver":"file","filename":"a"},"inject-error":[{"event":"none","errno":5}]}}"#,
            r#"json:{"driver": "raw", "file": {"image": {"driver": "file", "filename": "a"}, "driver": "blkdebug", "inject-error.0.errno": 5, "inject-error.0.event": "none"}}"#,
        ),
        (
            r#"json:{"driver":"raw","file":{"driver":"blkdebug","image":{"driver":"file","filename":"a"},"align":4096}}"#,
            r#"json:{"driver": "raw", "file": {"image": {"driver": "file", "filename": "a"}, "driver": "blkdebug", "align": 4096}}"#,
        ),
    ] {
        assert_eq!(plain(word, "10.2"), want, "{word}");
    }
}

#[test]
fn words_about_the_backing_file() {
    let backing = |word: &str| {
        let described = describe(&Named::plain(word.as_bytes()), &profile("10.2")).unwrap();
        (described.node.backing, described.warnings.len())
    };
    let of = |value: &str| backing(&format!(r#"json:{{"driver":"qcow2","file.filename":"a","backing":{value}}}"#));
    assert_eq!(of("null"), (Backing::None, 0));
    assert_eq!(of("\"\""), (Backing::None, 1));
    assert_eq!(of("\"x\""), (Backing::Reference(b"x".to_vec()), 0));
    let driver = (b"driver".to_vec(), Value::Text(b"raw".to_vec()));
    assert_eq!(of(r#"{"driver":"raw"}"#), (Backing::Options(vec![driver]), 0));
}

#[test]
fn leaves() {
    let leaf = |word: &str| {
        let described = describe(&Named::plain(word.as_bytes()), &profile("10.2")).unwrap();
        format!("{:?}", described.node.child("file").and_then(Node::leaf))
    };
    assert_eq!(leaf("file:x"), format!("{:?}", Some(Leaf::File(b"x"))));
    assert_eq!(leaf("host_device:x"), format!("{:?}", Some(Leaf::HostDevice(b"x"))));
    assert_eq!(leaf("null-co://"), format!("{:?}", Some(Leaf::Null(1 << 30))));
    assert_eq!(
        leaf(r#"json:{"driver":"raw","file":{"driver":"null-co","size":"64k"}}"#),
        format!("{:?}", Some(Leaf::Null(65536)))
    );
}
