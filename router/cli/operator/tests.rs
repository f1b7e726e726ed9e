//! The commands as typed, and their exit codes, against ports that are not
//! what they should be.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

fn typed(line: &[&str]) -> (OperatorCommand, Reach) {
    let cli = Cli::try_parse_from(std::iter::once(&"portico").chain(line)).unwrap();
    match cli.command {
        Command::Operator(command) => (command, cli.reach),
        other => panic!("{line:?} is {other:?}"),
    }
}

fn failure(line: &[&str]) -> CommandError {
    let (command, reach) = typed(line);
    let client = Client::new(&reach, command.settings());
    let done = match &command {
        OperatorCommand::Apps(args) => views::apps(&client, args),
        OperatorCommand::Drain(args) => orders::drain(&client, args),
        OperatorCommand::Eject(args) => orders::eject(&client, args),
        OperatorCommand::Readmit(args) => orders::readmit(&client, args),
        OperatorCommand::Import(args) => import::import(&client, args),
        other => panic!("{other:?} is not tried here"),
    };
    done.unwrap_err()
}

/// A server that answers one request with these bytes, read or unread.
fn answering(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(answer).unwrap();
    });
    format!("http://{address}")
}

#[test]
fn options_may_stand_before_or_after_the_command() {
    for line in [
        ["--admin", "http://a:1", "--json", "backends", "shop"],
        ["backends", "shop", "--admin", "http://a:1", "--json"],
    ] {
        let (command, reach) = typed(&line);
        assert!(matches!(command, OperatorCommand::Backends(named) if named.name == "shop"));
        assert_eq!(
            (reach.admin.as_deref(), reach.json),
            (Some("http://a:1"), true)
        );
    }
    assert!(matches!(typed(&["events", "-f"]).0, OperatorCommand::Events(args) if args.follow));
    assert!(matches!(typed(&["top", "--once"]).0, OperatorCommand::Top(args) if args.once));
    assert!(matches!(typed(&["import", "-"]).0, OperatorCommand::Import(args) if args.file == "-"));
    assert!(Cli::try_parse_from(["portico", "top", "--interval", "0"]).is_err());
    assert!(
        matches!(typed(&["upgrade", "--timeout", "9"]).0, OperatorCommand::Upgrade(args) if args.timeout == 9)
    );
}

#[test]
fn nobody_there_is_named_with_a_hint() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{free}");
    let error = failure(&["apps", "--admin", &url, "--token", "t"]).to_string();
    assert!(error.starts_with(&format!("{url}/apps?")), "{error}");
    assert!(error.contains("is the router running there?"), "{error}");
    assert!(error.contains("PORTICO_ADMIN"), "{error}");
}

#[test]
fn what_the_router_refuses_is_told_in_its_words() {
    let url = answering(
        b"HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\ncontent-length: 35\r\n\r\n\
          {\"detail\":\"there is no app `shop`\"}",
    );
    let error = failure(&["drain", "shop", "web.1", "--admin", &url, "--token", "t"]).to_string();
    assert!(
        error.contains("/apps/shop/backends/web.1/drain: there is no app"),
        "{error}"
    );
}

#[test]
fn something_else_on_the_port_is_no_router() {
    let url = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    let error = failure(&["apps", "--admin", &url, "--token", "t"]).to_string();
    assert!(error.contains("is this a router?"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = failure(&[
        "import",
        "/no/such/file",
        "--api",
        "127.0.0.1:1",
        "--token",
        "t",
    ]);
    assert_eq!(
        error.to_string(),
        "/no/such/file: No such file or directory (os error 2)"
    );
}

#[test]
fn a_url_that_is_none_is_a_matter_of_usage() {
    let error = failure(&["apps", "--admin", "https://a", "--token", "t"]);
    assert!(matches!(error, CommandError::Usage(_)), "{error}");
}
