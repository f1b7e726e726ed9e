//! A peer's configuration as a file with blanks: `load-tests/peers/`.
//!
//! Owns the blanks only: `@NAME@` is replaced, and a line that speaks of a
//! backend is repeated for each of its group. The choices are in the files, with
//! their reasons.

use std::net::SocketAddr;
use std::path::Path;

/// Backends by the name that a line speaks of them with: `@BACKEND@`, `@QUIET@`.
pub type Group<'a> = (&'a str, &'a [SocketAddr]);

/// What goes into the blanks.
#[derive(Clone, Copy, Debug)]
pub struct Blanks<'a> {
    /// `@LISTEN@`, `@ADDRESS@`, `@PORT@`.
    pub listen: SocketAddr,
    /// `@FOLDER@`.
    pub folder: &'a Path,
    /// `@NAME@`, `@NAME_ADDRESS@`, `@NAME_PORT@`, and `@NUMBER@` on their lines.
    pub groups: &'a [Group<'a>],
    /// Any other blank.
    pub words: &'a [(&'a str, String)],
}

impl Blanks<'_> {
    /// The template with its blanks filled in, and without its comments.
    pub fn fill(&self, template: &str) -> String {
        let mut filled = String::new();
        for line in template.lines().filter(|line| !is_comment(line)) {
            let line = self.of_all(line);
            let group = self.groups.iter().find(|(name, _)| {
                line.contains(&format!("@{name}@")) || line.contains(&format!("@{name}_"))
            });
            let Some((name, backends)) = group else {
                filled.push_str(&line);
                filled.push('\n');
                continue;
            };
            for (number, backend) in backends.iter().enumerate() {
                let line = line
                    .replace(&format!("@{name}@"), &backend.to_string())
                    .replace(&format!("@{name}_ADDRESS@"), &backend.ip().to_string())
                    .replace(&format!("@{name}_PORT@"), &backend.port().to_string())
                    .replace("@NUMBER@", &(number + 1).to_string());
                filled.push_str(&line);
                filled.push('\n');
            }
        }
        filled
    }

    /// The blanks that are the same on every line.
    fn of_all(&self, line: &str) -> String {
        let mut line = line
            .replace("@LISTEN@", &self.listen.to_string())
            .replace("@ADDRESS@", &self.listen.ip().to_string())
            .replace("@PORT@", &self.listen.port().to_string())
            .replace("@FOLDER@", &self.folder.display().to_string());
        for (name, word) in self.words {
            line = line.replace(&format!("@{name}@"), word);
        }
        line
    }
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
        let blanks = Blanks {
            listen: address(80),
            folder: Path::new("/tmp/x"),
            groups: &[
                ("BACKEND", &[address(1), address(2)]),
                ("QUIET", &[address(3)]),
            ],
            words: &[("LIMIT", "10".to_owned())],
        };
        let filled = blanks.fill(
            "# @LISTEN@\nlisten @LISTEN@ @FOLDER@\nserver web@NUMBER@ @BACKEND@ max @LIMIT@\n\
             port @BACKEND_PORT@ of @PORT@\nquiet@NUMBER@ @QUIET@\n",
        );
        assert_eq!(
            filled,
            "listen 127.0.0.1:80 /tmp/x\nserver web1 127.0.0.1:1 max 10\nserver web2 127.0.0.1:2 max 10\n\
             port 1 of 80\nport 2 of 80\nquiet1 127.0.0.1:3\n"
        );
    }
}
