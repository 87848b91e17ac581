
group "default" { targets = ["g1", "c"] }
group "g1" { 
  description = "inner"
  targets = ["a", "g2"] 
}
group "g2" { targets = ["b", "a"] }
target "a" {}
target "b" {}
target "c" {}
