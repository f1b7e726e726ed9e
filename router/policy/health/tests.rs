//! The judgement, by stories and by properties, in virtual time.
