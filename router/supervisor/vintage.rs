//! Vintages: what the members of a post have in common.
//!
//! Owns which program, settings and footing each one stands for. A post knows
//! only their numbers; decides nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::child::Program;
use crate::heritage::Footing;
use crate::settings::Settings;

/// The name of a [`Recipe`]. Later ones are greater; none is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Vintage(pub(super) u64);

/// What a child is started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Recipe {
    /// The binary.
    pub program: Program,
    /// Checked settings.
    pub settings: Settings,
    /// Which table an edge boots from; nothing to control.
    pub footing: Footing,
}

/// Every vintage that somebody is, or may be, started from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cellar {
    recipes: BTreeMap<Vintage, Recipe>,
    last: u64,
}

impl Cellar {
    /// A new vintage.
    pub(super) fn lay(&mut self, recipe: Recipe) -> Vintage {
        self.last += 1;
        let vintage = Vintage(self.last);
        self.recipes.insert(vintage, recipe);
        vintage
    }

    /// What it stands for.
    pub(super) fn recipe(&self, vintage: Vintage) -> &Recipe {
        self.recipes
            .get(&vintage)
            .expect("a vintage in use must have been kept")
    }

    /// From now on `program` is what these are started from.
    pub(super) fn rename(&mut self, vintages: &[Vintage], program: &Program) {
        for vintage in vintages {
            if let Some(recipe) = self.recipes.get_mut(vintage) {
                recipe.program = program.clone();
            }
        }
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, used: &[Vintage]) {
        self.recipes.retain(|vintage, _| used.contains(vintage));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_kept_and_no_number_comes_twice() {
        let recipe = Recipe {
            program: Program::this().unwrap(),
            settings: Settings::default(),
            footing: Footing::Newest,
        };
        let mut cellar = Cellar::default();
        let first = cellar.lay(recipe.clone());
        let second = cellar.lay(Recipe {
            footing: Footing::Proven,
            ..recipe
        });
        cellar.keep(&[second]);
        assert_eq!(cellar.recipe(second).footing, Footing::Proven);
        let third = cellar.lay(cellar.recipe(second).clone());
        assert!(first < second && second < third);
    }
}
