
target "t" { tags = ["two-${V}"] }
