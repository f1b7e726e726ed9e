//! Servers and clients that others wrote: behind the router and before it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::harness::{Backend, Router, eventually, need, patterned, processes};

/// Debian's, which sees Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

/// A server of somebody else's; ends with the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts it and waits until it listens.
    fn start(address: SocketAddr, command: &mut Command) -> Server {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let server = Server { child, address };
        eventually("it listens", || TcpStream::connect(address).ok());
        server
    }

    /// Python's own file server.
    fn python(folder: &Path) -> Server {
        need("python3", "python3");
        let address = free();
        let mut command = Command::new(PYTHON);
        command
            .args([
                "-m",
                "http.server",
                &address.port().to_string(),
                "--bind",
                "127.0.0.1",
            ])
            .args(["--protocol", "HTTP/1.1", "--directory"])
            .arg(folder);
        Server::start(address, &mut command)
    }

    /// Node's http module, echoing method, path, forwarded headers and body.
    fn node() -> Server {
        need("node", "nodejs");
        let address = free();
        let script = format!(
            "require('http').createServer((q, s) => {{ const parts = []; \
             q.on('data', p => parts.push(p)); q.on('end', () => {{ \
             const body = Buffer.concat(parts); \
             s.setHeader('x-body-bytes', body.length); s.setHeader('x-seen-for', q.headers['x-forwarded-for'] || ''); \
             s.setHeader('x-method', q.method); s.write('you asked for ' + q.url + '\\n'); s.end(body); }}); }})\
             .listen({}, '127.0.0.1')",
            address.port()
        );
        Server::start(address, Command::new("node").args(["-e", &script]))
    }

    /// nginx, serving a folder.
    fn nginx(folder: &Path) -> Server {
        need("nginx", "nginx-light");
        let address = free();
        let here = folder.display();
        let text = format!(
            "daemon off; master_process off; pid {here}/nginx.pid; error_log {here}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; client_body_temp_path {here}/b; proxy_temp_path {here}/p;\n\
             fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
             server {{ listen {address}; root {here}/www; \
             location /empty {{ return 204; }} location /moved {{ return 301 /; }} }} }}\n"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, text).expect("writable");
        let mut command = Command::new("nginx");
        command
            .arg("-e")
            .arg(folder.join("error.log"))
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(file);
        Server::start(address, &mut command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        processes::kill_tree(self.child.id());
        let _ = self.child.wait();
    }
}

/// A port free just now.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback must have a free port");
    listener.local_addr().expect("a listener has an address")
}

fn curl(router: &Router, host: &str, arguments: &[&str]) -> Vec<u8> {
    need("curl", "curl");
    let port = router.http().port();
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30", "--noproxy", "*"])
        .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
        .args(arguments)
        .output()
        .expect("curl must run");
    assert!(
        output.status.success(),
        "curl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn url(router: &Router, host: &str, path: &str) -> String {
    format!("http://{host}:{}{path}", router.http().port())
}

#[test]
fn curl_fetches_files_of_pythons_server() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let body = patterned(3_000_000);
    fs::write(folder.path().join("big.bin"), &body).expect("writable");
    fs::write(folder.path().join("small.txt"), "small\n").expect("writable");
    let server = Server::python(folder.path());
    let router = Router::start();
    router.serve_at("files", &json!({}), &[server.address]);
    let host = "files.example";
    assert!(curl(&router, host, &[&url(&router, host, "/big.bin")]) == body);
    let both = curl(
        &router,
        host,
        &[
            &url(&router, host, "/small.txt"),
            &url(&router, host, "/small.txt"),
        ],
    );
    assert_eq!(both, b"small\nsmall\n");
    let head = curl(&router, host, &["-I", &url(&router, host, "/small.txt")]);
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(
        head.contains("200") && head.to_lowercase().contains("content-length: 6"),
        "{head}"
    );
    let missing = curl(
        &router,
        host,
        &[
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &url(&router, host, "/missing"),
        ],
    );
    assert_eq!(missing, b"404");
}

#[test]
fn curl_posts_to_nodes_server() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let body = patterned(1_500_000);
    let file = folder.path().join("upload.bin");
    fs::write(&file, &body).expect("writable");
    let server = Server::node();
    let router = Router::start();
    router.serve_at("node", &json!({}), &[server.address]);
    let host = "node.example";
    let upload = format!("@{}", file.display());
    for extra in [
        &[][..],
        &["-H", "Transfer-Encoding: chunked"],
        &["-H", "Expect: 100-continue"],
    ] {
        let target = url(&router, host, "/up?x=1");
        let mut arguments = vec!["--data-binary", upload.as_str()];
        arguments.extend_from_slice(extra);
        arguments.push(&target);
        let answer = curl(&router, host, &arguments);
        let start = b"you asked for /up?x=1\n";
        assert!(answer.starts_with(start), "{extra:?}");
        assert!(answer[start.len()..] == body, "{extra:?}: the body changed");
    }
    let headers = curl(
        &router,
        host,
        &["-D", "-", "-o", "/dev/null", &url(&router, host, "/")],
    );
    let headers = String::from_utf8_lossy(&headers).to_lowercase();
    assert!(headers.contains("x-seen-for: 127.0.0.1"), "{headers}");
}

#[test]
fn curl_speaks_http_1_0_to_nodes_chunked_answers() {
    let server = Server::node();
    let router = Router::start();
    router.serve_at("node", &json!({}), &[server.address]);
    let host = "node.example";
    let answer = curl(
        &router,
        host,
        &["--http1.0", "--data", "body", &url(&router, host, "/old")],
    );
    assert_eq!(String::from_utf8_lossy(&answer), "you asked for /old\nbody");
}

#[test]
fn nginx_behind_the_router_serves_all_it_has() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // nginx's workers drop their rights: what they read must be readable.
    fs::create_dir(folder.path().join("www")).expect("writable");
    let body = patterned(2_000_000);
    fs::write(folder.path().join("www/big.bin"), &body).expect("writable");
    let server = Server::nginx(folder.path());
    let router = Router::start();
    router.serve_at("nginx", &json!({}), &[server.address]);
    let host = "nginx.example";
    assert!(curl(&router, host, &[&url(&router, host, "/big.bin")]) == body);
    let range = curl(
        &router,
        host,
        &["-r", "1000-1999", &url(&router, host, "/big.bin")],
    );
    assert!(range == body[1000..2000]);
    for (path, status) in [("/empty", "204"), ("/moved", "301"), ("/none", "404")] {
        let code = curl(
            &router,
            host,
            &[
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                &url(&router, host, path),
            ],
        );
        assert_eq!(String::from_utf8_lossy(&code), status, "{path}");
    }
}

#[test]
fn wrk_sees_no_error() {
    need("wrk", "wrk");
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("www")).expect("writable");
    fs::write(folder.path().join("www/index.html"), "hello world\n").expect("writable");
    let server = Server::nginx(folder.path());
    let router = Router::start();
    router.serve_at("nginx", &json!({}), &[server.address, server.address]);
    let output = Command::new("wrk")
        .args(["-t1", "-c32", "-d2s", "-H", "Host: nginx.example"])
        .arg(format!("http://{}/", router.http()))
        .output()
        .expect("wrk must run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(
        !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "{text}"
    );
    let requests: u64 = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
        .unwrap_or_else(|| panic!("no count: {text}"));
    assert!(requests > 100, "{text}");
    eventually("each request has its line", || {
        (router.log().lines().count() as u64 >= requests).then_some(())
    });
}

#[test]
fn pythons_websockets_library_talks_through() {
    need("python3", "python3");
    let present = Command::new(PYTHON)
        .args(["-c", "import websockets"])
        .stderr(Stdio::null())
        .status();
    assert!(
        present.is_ok_and(|status| status.success()),
        "this test needs Debian's package `python3-websockets` (tests/all installs it)"
    );
    let backend = Backend::script(|conn| {
        let mut socket = tungstenite::accept(conn).expect("the handshake must pass");
        while let Ok(message) = socket.read() {
            if message.is_text() {
                socket.send(message).expect("the client must be there");
            }
        }
    });
    let router = Router::start();
    router.serve("chat", &[&backend]);
    let script = format!(
        "import asyncio, websockets\n\
         async def main():\n\
         \x20   async with websockets.connect('ws://chat.example/room', host='127.0.0.1', port={}) as socket:\n\
         \x20       for size in (1, 1000, 100000):\n\
         \x20           await socket.send('x' * size)\n\
         \x20           assert await socket.recv() == 'x' * size\n\
         \x20       pong = await socket.ping()\n\
         \x20       await asyncio.wait_for(pong, 10)\n\
         \x20   print('closed cleanly')\n\
         asyncio.run(main())\n",
        router.http().port()
    );
    let output = Command::new(PYTHON)
        .args(["-c", &script])
        .output()
        .expect("python must run");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
