use crate::command::testing::Bench;
