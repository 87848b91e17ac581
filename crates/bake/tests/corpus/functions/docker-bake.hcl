
target "default" {
  args = {
    absolute = absolute(-3.5)
    add = add(1, 2)
    and = and(true, false)
    b64d = base64decode("aGVsbG8=")
    b64e = base64encode("hi there")
    basename = "${basename("/a/b/c.txt")} ${basename("/")} ${basename("")} ${basename("a/")}"
    can = "${can(1 + 1)} ${can("x" + 1)} ${can(nothing)}"
    ceil = ceil(1.2)
    chomp = "[${chomp("x\n\n")}]"
    chunklist = jsonencode(chunklist(["a", "b", "c"], 2))
    cidrhost = "${cidrhost("10.0.0.0/24", 5)} ${cidrhost("10.0.0.0/24", -1)} ${cidrhost("fd00::/64", 17)}"
    cidrnetmask = cidrnetmask("172.16.0.0/12")
    cidrsubnet = "${cidrsubnet("172.16.0.0/12", 4, 2)}"
    cidrsubnets = join(" ", cidrsubnets("10.1.0.0/16", 4, 4, 8, 4))
    coalesce = coalesce(null, "x", "y")
    coalescelist = join(",", coalescelist([], ["a"]))
    compact = join(",", compact(["a", "", "b"]))
    concat = jsonencode(concat(["a"], [1, true]))
    contains = "${contains(["a", "b"], "a")} ${contains(["a"], "z")}"
    convert = jsonencode(convert(["1", 2], list(number)))
    csvdecode = jsonencode(csvdecode("a,b\n1,2\n3,4\n"))
    dirname = "${dirname("/a/b/c")} ${dirname("x")} ${dirname("/")} ${dirname("a/b/")}"
    distinct = join(",", distinct(["a", "b", "a"]))
    divide = divide(7, 2)
    element = "${element(["a", "b", "c"], 4)}"
    equal = "${equal("a", "a")} ${equal(1, "1")}"
    flatten = jsonencode(flatten([["a"], [], [["b", "c"]]]))
    floor = "${floor(1.8)} ${floor(-1.2)}"
    format = format("%s %d %05.1f %q %t %v %x %%|%5s|%-5s|%+d", "a", 3, 2.25, "q", true, [1], 255, "r", "l", 4)
    formatlist = join(";", formatlist("%s-%d", ["a", "b"], [1, 2]))
    formatdate = formatdate("YYYY-MM-DD hh:mm:ss ZZZ 'at' EEEE MMM D H aa", "2024-02-03T14:05:06Z")
    formattimestamp = "${formattimestamp("DD MMM YYYY", 1700000000)} ${formattimestamp("X", "2024-02-03T14:05:06+02:00")}"
    gt = "${greaterthan(2, 1)} ${greaterthanorequalto(2, 2)} ${lessthan(2, 1)} ${lessthanorequalto(1, 2)}"
    hasindex = "${hasindex(["a"], 0)} ${hasindex(["a"], 4)}"
    indent = indent(2, "a\nb")
    index = index(["a", "b"], 1)
    indexof = indexof(["a", "b"], "b")
    int = "${int(3.9)} ${int(-3.9)}"
    join = join("-", ["a", "b"], ["c"])
    jsondecode = jsondecode("{\"a\": [1, {\"b\": null}]}").a[0]
    jsonencode = jsonencode({ b = [1, 2.5, "x<y"], a = null, c = true })
    keys = join(",", keys({ b = 1, a = 2 }))
    length = "${length([1, 2])} ${length([])}"
    log = log(8, 2)
    lookup = "${lookup({ a = "x" }, "a", "d")} ${lookup({ a = "x" }, "b", "d")}"
    lower = lower("ABC")
    max = "${max(1, 5, 3)} ${min(4, 2)}"
    md5 = md5("foo")
    merge = jsonencode(merge({ a = 1 }, { b = 2, a = 3 }))
    modulo = modulo(7, 3)
    multiply = multiply(3, 4)
    negate = negate(5)
    not = not(true)
    notequal = notequal("a", "b")
    or = or(false, true)
    parseint = "${parseint("ff", 16)} ${parseint("-101", 2)}"
    pow = pow(2, 10)
    range = "${jsonencode(range(3))} ${jsonencode(range(1, 4))} ${jsonencode(range(5, 1, -2))}"
    regex = "${regex("[0-9]+", "ab12cd")} ${jsonencode(regex("(a)(b)?", "ac"))} ${jsonencode(regex("(?P<y>[0-9]{4})-(?P<m>[0-9]+)", "on 2024-05"))}"
    regexall = jsonencode(regexall("[a-z]", "a1b2"))
    regex_replace = regex_replace("hello", "l(.)", "[$1]")
    replace = replace("a.b.c", ".", "-")
    reverse = reverse("abc")
    reverselist = join(",", reverselist(["a", "b"]))
    sanitize = sanitize("a/b:c d")
    semvercmp = "${semvercmp("1.2.3", ">= 1.0")} ${semvercmp("v2.0.0", "^1.2 || ~3")} ${semvercmp("1.2.9", "~1.2.3")}"
    sethaselement = sethaselement(["a"], "a")
    setintersection = join(",", setintersection(["a", "b"], ["b", "c"]))
    setproduct = jsonencode(setproduct(["a", "b"], ["x", "y"]))
    setsubtract = join(",", setsubtract(["a", "b"], ["b"]))
    setsym = join(",", setsymmetricdifference(["a", "b"], ["b", "c"]))
    setunion = join(",", setunion(["c", "a"], ["b", "a"]))
    sha1 = sha1("foo")
    sha256 = sha256("foo")
    sha512 = sha512("foo")
    signum = "${signum(-4)} ${signum(0)} ${signum(9)}"
    slice = join(",", slice(["a", "b", "c", "d"], 1, 3))
    sort = join(",", sort(["b", "a", "C"]))
    split = jsonencode(split(",", "a,b,,c"))
    strlen = strlen("héllo")
    substr = "${substr("hello", 1, 3)} ${substr("hello", -3, -1)} ${substr("hello", 2, 99)}"
    subtract = subtract(5, 3)
    timeadd = timeadd("2024-01-01T00:00:00Z", "1h30m")
    title = title("hello wide-world it's")
    trim = trim("xxhixx", "x")
    trimprefix = trimprefix("v1.0", "v")
    trimspace = "[${trimspace("  x ")}]"
    trimsuffix = trimsuffix("a.tar.gz", ".gz")
    try = try(nada, jsondecode("x"), "fallback")
    unixts = jsonencode(unixtimestampparse(1700000000))
    upper = upper("abc")
    urlencode = urlencode("a b&c/d~é")
    uuidv5 = "${uuidv5("dns", "example.com")} ${uuidv5("url", "http://x")}"
    values = join(",", values({ b = "2", a = "1" }))
    zipmap = jsonencode(zipmap(["a", "b"], [1, "x"]))
  }
}
