# Reads the meta of a package: reports the plain data in it, and the reason why the package
# forbids to build it.
{
  text,
  say,
  wanted, # whether to report all plain data
}:
let
  inherit (builtins)
    all
    attrNames
    elem
    filter
    foldl'
    isAttrs
    isBool
    isFloat
    isInt
    isList
    isString
    listToAttrs
    stringLength
    tryEval
    unsafeDiscardStringContext
    ;
  inherit (text)
    badName
    clean
    first
    isDerivation
    kindOf
    longest
    shorten
    ;

  # Reports the plain data in meta, field by field, as far as there is room. Values that throw,
  # functions, derivations and large values are left out.
  tellMeta =
    holder: v:
    let
      of =
        x:
        let
          tried = tryEval (x.meta or { });
        in
        if tried.success && isAttrs tried.value && !(isDerivation tried.value) then tried.value else { };
      fields = of holder // of v;
      take =
        told: name:
        let
          most = if told.room < 8192 then told.room else 8192;
          item = plain 6 most fields.${name};
        in
        if most <= 0 || item.room <= 0 || !(item ? value) then
          told
        else
          {
            room = told.room - (most - item.room) - stringLength name;
            found = told.found ++ [ { inherit name; inherit (item) value; } ];
          };
    in
    if wanted then
      say "meta" (listToAttrs (foldl' take { room = 65536; found = [ ]; } (named fields)).found)
    else
      null;

  # The names in a set, without those that toJSON treats specially.
  named = set: filter (name: name != "outPath" && name != "__toString" && badName name == null) (attrNames set);

  # Returns the plain data in x, at most depth sets deep, and the number of characters that is
  # left of room. There is no value if nothing in x is plain data.
  plain =
    depth: room: x:
    let
      tried = tryEval x;
      v = tried.value;
      none = { inherit room; };
      whole = size: value: {
        inherit value;
        room = room - size - 4;
      };
      # Each item takes of the room that the one before has left.
      gather =
        f:
        foldl' (
          all: x:
          if all.room <= 0 then
            all
          else
            let
              item = f all.room x;
            in
            {
              inherit (item) room;
              found = all.found ++ (if item ? value then [ item.value ] else [ ]);
            }
        ) {
          room = room - 4;
          found = [ ];
        };
      items = gather (plain (depth - 1)) v;
      fields = gather (
        room: name:
        let
          item = plain (depth - 1) (room - stringLength name) v.${name};
        in
        if item ? value then item // { value = { inherit name; inherit (item) value; }; } else item
      ) (named v);
    in
    if !tried.success || room <= 0 then
      none
    else if isString v then
      (if stringLength v < room && clean v != v then none else whole (stringLength v) (unsafeDiscardStringContext v))
    else if v == null || isBool v || isInt v || isFloat v then
      whole 0 v
    else if depth == 0 || isDerivation v then
      none
    else if isList v then
      {
        inherit (items) room;
        value = items.found;
      }
    else if isAttrs v then
      {
        inherit (fields) room;
        value = listToAttrs fields.found;
      }
    else
      none;

  try =
    otherwise: x:
    let
      tried = tryEval x;
    in
    if tried.success then tried.value else otherwise;
  metaOf =
    v:
    let
      meta = try { } (v.meta or { });
    in
    if isAttrs meta then meta else { };

  # What a derivation, or the configuration that it is in, asks for in meta.nixMatrix: the value of
  # each field if it is a string, a number or a Boolean, else what it is in its place.
  asked =
    holder: v:
    let
      found = filter (x: x.value != null) (
        map (name: {
          inherit name;
          value = first [
            (field v name)
            (field holder name)
          ];
        }) [ "group" "priority" "runner" "skip" "timeout" ]
      );
      tell =
        name: x:
        let
          tried = tryEval x;
        in
        if !tried.success then
          { kind = "a value that throws"; }
        else if isString tried.value then
          { value = shorten longest (unsafeDiscardStringContext tried.value); }
        else if isBool tried.value || isInt tried.value then
          { inherit (tried) value; }
        else if name == "runner" && isList tried.value && try false (all isString tried.value) then
          { value = ""; } # the labels are reported apart
        else
          { kind = kindOf tried.value; };
    in
    listToAttrs (
      map (x: {
        inherit (x) name;
        value = tell x.name x.value.x;
      }) found
    );

  # A field of meta.nixMatrix as { x }, or null.
  field =
    v: name:
    let
      own = try null (metaOf v).nixMatrix or null;
    in
    if isAttrs own && own ? ${name} then { x = own.${name}; } else null;

  # The reason for which meta.nixMatrix wants that nothing is built, an empty text if it gives none,
  # or null.
  skipped =
    v:
    let
      found = field v "skip";
      value = if found == null then null else try null found.x;
    in
    if value == true then
      ""
    else if isString value then
      shorten longest (unsafeDiscardStringContext value)
    else
      null;

  # Nixpkgs reports in meta.available whether its settings allow a package. Where it is false,
  # drvPath throws, with a reason even if the marks have none.
  isAvailable = meta: try true (meta.available or true != false);
  positionOf =
    meta:
    let
      position = try null (meta.position or null);
    in
    if isString position then shorten longest position else "";

  # The reason why a package forbids to build it, by its own meta alone, or null. Packages from
  # elsewhere than Nixpkgs have only the marks.
  refusal =
    meta: system:
    let
      marked = name: try false (meta.${name} or false == true);
      platforms = name: try null (if isList meta.${name} && all isString meta.${name} then meta.${name} else null);
      elsewhere = "is not available on ${system}";
    in
    if meta ? available then
      if isAvailable meta then
        null
      else if marked "broken" then
        "is marked as broken"
      else if marked "unsupported" then
        elsewhere
      else if marked "insecure" then
        "is marked as insecure"
      else if marked "unfree" then
        "has an unfree license"
      else
        null
    else if marked "broken" then
      "is marked as broken"
    else if meta ? platforms && platforms "platforms" != null && !(elem system (platforms "platforms")) then
      elsewhere
    else if meta ? badPlatforms && platforms "badPlatforms" != null && elem system (platforms "badPlatforms") then
      elsewhere
    else
      null;
in
{
  inherit
    asked
    isAvailable
    metaOf
    positionOf
    refusal
    skipped
    tellMeta
    ;
}
