//! A peer's configuration as a file with blanks: `load-tests/peers/faults/`.
//!
//! Owns the blanks only: `@NAME@` is replaced, and a line that speaks of a
//! backend is repeated for each. The choices are in the files, with their
//! reasons.

use std::net::SocketAddr;
use std::path::Path;

/// Fills in the blanks.
pub fn fill(template: &str, listen: SocketAddr, folder: &Path, backends: &[SocketAddr]) -> String {
    let mut filled = String::new();
    for line in template.lines().filter(|line| !is_comment(line)) {
        let of_a_backend = line.contains("@BACKEND@") || line.contains("@BACKEND_PORT@");
        let repeated = if of_a_backend { backends } else { &[listen] };
        for (number, backend) in repeated.iter().enumerate() {
            let line = line
                .replace("@LISTEN@", &listen.to_string())
                .replace("@ADDRESS@", &listen.ip().to_string())
                .replace("@PORT@", &listen.port().to_string())
                .replace("@FOLDER@", &folder.display().to_string())
                .replace("@BACKEND@", &backend.to_string())
                .replace("@BACKEND_ADDRESS@", &backend.ip().to_string())
                .replace("@BACKEND_PORT@", &backend.port().to_string())
                .replace("@NUMBER@", &(number + 1).to_string());
            filled.push_str(&line);
            filled.push('\n');
        }
    }
    filled
}

/// Comments speak of the blanks; they stay behind.
fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_backends_are_repeated() {
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let filled = fill(
            "# @LISTEN@\nlisten @LISTEN@ @FOLDER@\nserver web@NUMBER@ @BACKEND@\nport @BACKEND_PORT@ of @PORT@\n",
            address(80),
            Path::new("/tmp/x"),
            &[address(1), address(2)],
        );
        assert_eq!(
            filled,
            "listen 127.0.0.1:80 /tmp/x\nserver web1 127.0.0.1:1\nserver web2 127.0.0.1:2\n\
             port 1 of 80\nport 2 of 80\n"
        );
    }
}
