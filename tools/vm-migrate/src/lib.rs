// SPDX-License-Identifier: GPL-2.0

//! What both programs know: which bytes the memory of a virtual machine must hold, and the lines that
//! they exchange.
//!
//! | module  | subject                                                                  |
//! |---------|--------------------------------------------------------------------------|
//! | `rule`  | which page a write goes to, and which words it carries                   |
//! | `area`  | what a piece of memory must hold after so many writes, and the comparing |
//! | `words` | the lines of `key=value` words between the two programs                  |

pub mod area;
pub mod rule;
pub mod words;
