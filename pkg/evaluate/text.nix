# Small functions for the other files. Above all they make texts short and valid UTF-8, because
# newer versions of Nix end at anything else in JSON, which tryEval does not catch.
let
  inherit (builtins)
    all
    concatStringsSep
    deepSeq
    elem
    elemAt
    filter
    foldl'
    fromJSON
    genList
    head
    isAttrs
    isList
    isString
    length
    match
    seq
    split
    stringLength
    substring
    tail
    tryEval
    typeOf
    ;

  kindOf =
    v:
    {
      bool = "a Boolean";
      float = "a float";
      int = "an integer";
      lambda = "a function";
      list = "a list";
      null = "null";
      path = "a path";
      set = "a set";
      string = "a string";
    }
    .${typeOf v} or "of the type ${typeOf v}";

  # The first item that is not null; the items after it are not evaluated.
  first =
    list:
    if list == [ ] then
      null
    else if head list != null then
      head list
    else
      first (tail list);

  unique = foldl' (found: x: if elem x found then found else found ++ [ x ]) [ ];

  isDerivation = v: isAttrs v && v.type or null == "derivation";

  # Nix compares strings byte by byte. So a sequence of bytes is a character if it lies between
  # two characters of that length and each byte but the first is a continuation.
  character = code: fromJSON "\"${code}\"";
  byte = n: code: substring n 1 (character code);
  continuation = {
    least = byte 1 "\\u0080";
    most = byte 1 "\\u00bf";
  };
  ranges =
    map
      (r: {
        least = character (elemAt r 0);
        most = character (elemAt r 1);
        size = stringLength (character (elemAt r 0));
      })
      [
        [ "\\u0001" "\\u007f" ]
        [ "\\u0080" "\\u07ff" ]
        [ "\\u0800" "\\ud7ff" ]
        [ "\\ue000" "\\uffff" ]
        [ "\\ud800\\udc00" "\\udbff\\udfff" ]
      ];
  isCharacter =
    s: r:
    stringLength s == r.size
    && r.least <= s
    && s <= r.most
    && all (
      n:
      let
        c = substring n 1 s;
      in
      n == 0 || continuation.least <= c && c <= continuation.most
    ) (genList (n: n) r.size);

  # The text with a replacement character for each byte that belongs to no character. Slow for
  # long texts.
  clean =
    s:
    if match plain s != null then
      s
    else
      concatStringsSep "" (map (part: if isString part then part else cleanBytes (head part)) (split "([^\n\t -~]+)" s));
  plain = "[\n\t -~]*";
  cleanBytes =
    s:
    let
      step =
        { at, text }:
        n:
        let
          fit = filter (r: isCharacter (substring n r.size s) r) ranges;
          size = if fit == [ ] then 1 else (head fit).size;
          more = text + (if fit == [ ] then "�" else substring n size s);
        in
        if n < at then
          { inherit at text; }
        else
          seq more {
            at = n + size;
            text = more;
          };
    in
    (foldl' step {
      at = 0;
      text = "";
    } (genList (n: n) (stringLength s))).text;
  shorten = n: s: clean (substring 0 n s);

  # A problem with a value that has to be a text, or null.
  badText =
    what: most: x:
    if !(isString x) then
      "${what} is ${kindOf x}, not a string"
    else if stringLength x > most then
      "${what} is longer than ${toString most} bytes"
    else if clean x != x then
      "${what} is not valid UTF-8"
    else
      null;
  longest = 1000; # bytes of a name, a system, a path
  badName = badText "its name" longest;

  startsWith = start: s: substring 0 (stringLength start) s == start;

  # The texts in x, which is one or a list: at most 50, and none if one throws.
  words =
    x:
    let
      texts = if isString x then [ x ] else if isList x then filter isString x else [ ];
      some = genList (n: shorten longest (elemAt texts n)) (if length texts < 50 then length texts else 50);
      tried = tryEval (deepSeq some some);
    in
    if tried.success then tried.value else [ ];
in
{
  inherit
    badName
    badText
    clean
    first
    isDerivation
    kindOf
    longest
    shorten
    startsWith
    unique
    words
    ;
}
