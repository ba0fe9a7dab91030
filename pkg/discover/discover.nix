# Walks through a value and tells about each target on the way, by traces.
#
# A trace is a line "NONCE EVENT JSON". The nonce is new for each evaluator, so
# that nothing evaluated can forge one. A target is announced before anything of
# it is evaluated (at), then named, then described (target) or refused: when an
# evaluator dies, the target that was announced last is what killed it, and the
# next evaluator goes on after that one. What is left out is not announced.
#
# The order of the walk is always the same. So a position, the number of a root
# and the path from there, [ N NAME … ], says how far a walk has come, and two
# positions bound a part of it.
#
# Other events: what is in a set that is entered (names); that all sets are
# listed which the schema of flakes knows (listed); a root is entered (root) and
# found; a requested attribute is missing; a file is a function that needs
# arguments (needs); what belongs to a target but may fail (about, meta).
{
  nonce,
  systems, # that are wanted
  currentSystem,
  base, # path of the value
  roots, # [ { path = [ … ]; required = bool; outputs = null or [ … ]; } ]: what to walk,
  #        seen from the value, and which outputs of it are wanted
  flake, # whether the value is (part of) the outputs of a flake
  host, # path of the target below a NixOS configuration
  args, # for functions
  globs, # [ { n = N; exclude = bool; rest = [ SEGMENT … ]; } ]; a SEGMENT is "**" or the
  #        list of pieces between which anything may be
  meta, # whether to tell the whole meta of packages
  list, # whether to list first
  listed, # null, or the position of the set that was listed last
  from, # null, or { path = POSITION; after = bool; }: begin there, or after it
  until, # null, or the position to end before
  skip, # positions that are known to kill
}:
value:
let
  inherit (builtins)
    all
    any
    attrNames
    concatMap
    deepSeq
    elem
    elemAt
    filter
    foldl'
    functionArgs
    genList
    head
    intersectAttrs
    isAttrs
    isBool
    isFloat
    isFunction
    isInt
    isList
    isString
    length
    listToAttrs
    match
    seq
    stringLength
    substring
    tail
    toJSON
    toXML
    trace
    tryEval
    unsafeDiscardStringContext
    ;

  say = event: data: trace "${nonce} ${event} ${toJSON data}" null;

  each = f: foldl' (_: x: seq (f x) null) null;

  isDerivation = v: isAttrs v && v.type or null == "derivation";

  # ---- Functions ------------------------------------------------------------

  # As Nix does for `nix-build FILE --arg …`: a function of a set is called with
  # the arguments that it names, or with all if it takes any, unless it needs
  # others.
  call = v: if isFunction v && takesSet v && needs v == [ ] then v (arguments v) else v;
  needs = v: filter (name: !(functionArgs v).${name} && !(args ? ${name})) (attrNames (functionArgs v));
  arguments = v: if takesAny v then args else intersectAttrs (functionArgs v) args;

  # Only the XML of a function tells `x:` from `{ }:` from `{ ... }:`.
  pattern = "<?xml version='1.0' encoding='utf-8'?>\n<expr>\n  <function>\n    <attrspat";
  startsWith = start: s: substring 0 (stringLength start) s == start;
  takesSet = v: startsWith pattern (toXML v);
  takesAny = v: startsWith (pattern + " ellipsis=\"1\"") (toXML v);

  # ---- Globs ----------------------------------------------------------------

  drop = n: s: substring n (stringLength s) s;

  # Whether a name is made of the pieces in this order, with anything between.
  matches =
    pieces: name:
    if tail pieces == [ ] then
      name == head pieces
    else
      startsWith (head pieces) name && ends (tail pieces) (drop (stringLength (head pieces)) name);
  ends =
    pieces: s:
    let
      piece = head pieces;
      size = stringLength piece;
      room = stringLength s - size;
      at = find piece size room s 0;
    in
    if tail pieces == [ ] then
      room >= 0 && drop room s == piece
    else
      at != null && ends (tail pieces) (drop (at + size) s);
  find =
    piece: size: room: s: at:
    if at > room then
      null
    else if substring at size s == piece then
      at
    else
      find piece size room s (at + 1);

  # A choice is what is left of the globs on the way down to a path. A glob
  # covers what it matches and all that is below.
  everything = {
    taken = !(any (g: !g.exclude) globs);
    excluded = false;
    hits = [ ]; # numbers of the globs that match here
    inherit globs;
  };
  choose =
    choice: name:
    let
      # "**" may match no name: then what is behind it counts.
      ways = rest: [ rest ] ++ (if rest != [ ] && head rest == "**" then ways (tail rest) else [ ]);
      step =
        rest:
        if rest == [ ] then
          [ ]
        else if head rest == "**" then
          [ rest ]
        else if matches (head rest) name then
          [ (tail rest) ]
        else
          [ ];
      next = concatMap (
        g: map (rest: g // { inherit rest; }) (concatMap step (ways g.rest))
      ) choice.globs;
      covers = filter (g: elem [ ] (ways g.rest)) next;
      hits = map (g: g.n) covers;
    in
    if choice.globs == [ ] then
      choice // { hits = [ ]; }
    else
      {
        taken = choice.taken || any (g: !g.exclude) covers;
        excluded = choice.excluded || any (g: g.exclude) covers;
        inherit hits;
        globs = unique (filter (g: !(elem g.n hits)) next);
      };
  unique = foldl' (found: x: if elem x found then found else found ++ [ x ]) [ ];
  chooseAll = foldl' (
    choice: name:
    let
      next = choose choice name;
    in
    next // { hits = choice.hits ++ next.hits; }
  );

  # Globs that may match something below, and those that would be missed there.
  hopes = choice: filter (g: !g.exclude) choice.globs;
  alive = choice: unique (map (g: g.n) choice.globs);
  meant = choice: unique (map (g: g.n) (filter (g: head g.rest != "**") choice.globs));
  hopeless = choice: choice.excluded || !choice.taken && hopes choice == [ ];

  # Whether to go to an attribute, by its schema.
  goes =
    schema: choice:
    if choice.taken || hopeless choice || schema ? of then
      !(hopeless choice)
    else if schema ? suffix then
      false
    else if schema.item or false then
      any (g: head g.rest != "**") (hopes choice) # or all would be evaluated for **.NAME
    else
      true;

  # ---- Schemas --------------------------------------------------------------

  # What is known of the outputs of a flake. A schema says what lies at a path.
  hosts = suffix: { of = { inherit suffix; }; };
  perSystem = of: {
    inherit of;
    keys = "systems";
  };
  every = of: { inherit of; };
  anything = {
    recurse = false;
  };
  item = anything // {
    item = true;
  };
  asked = {
    recurse = true;
  };
  deep = {
    deep = true;
  };
  outputs = {
    nixosConfigurations = hosts host;
    darwinConfigurations =
      if filter (s: match ".*-darwin" s != null) systems != [ ] then
        hosts [ "system" ]
      else
        { omitted = true; };
    homeConfigurations = hosts [ "activationPackage" ];
    packages = perSystem (every item);
    legacyPackages = perSystem (every item);
    checks = perSystem (every item);
    devShells = perSystem (every item);
    formatter = perSystem item;
    hydraJobs = deep;
  };

  # The schema of the path that is rooted at the outputs of a flake.
  schemaOf =
    path:
    if !flake || path == [ ] then
      asked
    else
      foldl' (schema: _: schema.of or (if schema ? deep then deep else asked)) (outputs.${head path} or asked
      ) (tail path);

  # ---- Targets --------------------------------------------------------------

  describe =
    root: path: holder: v:
    let
      wanted =
        if root.outputs == [ "*" ] then
          v.outputs or [ "out" ]
        else if root.outputs != null then
          root.outputs
        else if v.outputSpecified or false then
          [ v.outputName ]
        else
          v.meta.outputsToInstall or [ (v.outputName or "out") ];
      reason = refusal v;
    in
    seq
      (say "named" {
        name = v.name or "";
        system = v.system or "";
        inherit path;
      })
      (
        if reason != null then
          seq (say "refused" reason) (tellMeta holder v)
        else
          seq
            (say "target" {
              inherit (v) drvPath system;
              outputs = wanted;
              outPaths = listToAttrs (
                map (o: {
                  name = o;
                  value = v.${o}.outPath or null;
                }) wanted
              );
            })
            (
              seq (say "about" {
                description = words (v.meta.description or holder.meta.description or null);
                features = words (v.requiredSystemFeatures or null);
                runner = words (v.meta.nixMatrix.runner or holder.meta.nixMatrix.runner or null);
              }) (tellMeta holder v)
            )
      );

  # What is plain data of meta, field by field, as far as there is room. What throws,
  # is a function or a derivation, or is too large, is left out.
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
    if meta then
      say "meta" (listToAttrs (foldl' take { room = 65536; found = [ ]; } (named fields)).found)
    else
      null;

  # Names that mean something to toJSON are none here.
  named = set: filter (name: name != "outPath" && name != "__toString") (attrNames set);

  # Gives x without what is no plain data, so many sets deep, and the room that is left
  # of that for so many characters. There is no value where nothing of x is plain.
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
      # Each goes on with the room that the one before has left.
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
      whole (stringLength v) (unsafeDiscardStringContext v)
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

  # The texts that x is or has. What throws is none.
  words =
    x:
    let
      texts = if isString x then [ x ] else if isList x then filter isString x else [ ];
      tried = tryEval (deepSeq texts texts);
    in
    if tried.success then tried.value else [ ];

  # Why a package is not to be built. Nixpkgs says what it makes of its own
  # settings in meta.available; others have only the marks.
  refusal =
    v:
    let
      try = otherwise: x: let tried = tryEval x; in if tried.success then tried.value else otherwise;
      metaOf = try { } (v.meta or { });
      meta = if isAttrs metaOf then metaOf else { };
      marked = name: try false (meta.${name} or false == true);
      platforms = name: try null (if isList meta.${name} && all isString meta.${name} then meta.${name} else null);
      elsewhere = "is not available on ${v.system}";
    in
    if meta ? available then
      if try true (meta.available != false) then
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
    else if meta ? platforms && platforms "platforms" != null && !(elem v.system (platforms "platforms")) then
      elsewhere
    else if meta ? badPlatforms && platforms "badPlatforms" != null && elem v.system (platforms "badPlatforms") then
      elsewhere
    else
      null;

  # ---- The walk -------------------------------------------------------------

  # What is left of the bounds, seen from a child; null if it is out of them.
  narrow =
    bounds: name:
    let
      inherit (bounds) from until;
      first = from != null && name == head from.path;
      final = until != null && name == head until;
    in
    if
      from != null && name < head from.path
      || first && tail from.path == [ ] && from.after
      || until != null && head until < name
      || final && tail until == [ ]
    then
      null
    else
      {
        from = if first && tail from.path != [ ] then from // { path = tail from.path; } else null;
        until = if final then tail until else null;
      };

  # at is where a walk is: in which root, at which position, on which path of the
  # user's, in which bounds, by which choice, and whether only to list.
  walk =
    at: schema: v:
    if schema ? omitted then
      say "omit" (meant at.choice)
    else if schema ? of then
      children at schema.of (schema.keys or null) v
    else if at.list then
      null
    else if schema ? suffix then
      describe at.root (at.path ++ schema.suffix) v (foldl' (set: name: set.${name}) v schema.suffix)
    else if isDerivation v then
      (if at.choice.taken then describe at.root at.path { } v else null)
    else if !(isAttrs v) then
      null
    else if schema ? deep then
      (
        if !(v.recurseForDerivations or true) then
          null
        else if length at.position > 32 then
          throw "it is more than 32 sets deep: is a set in itself? recurseForDerivations = false ends the walk"
        else
          children at deep null v
      )
    else if schema.recurse || v.recurseForDerivations or false then
      children at anything null v
    else
      null;

  children =
    at: schema: keys: v:
    let
      found = map (name: {
        inherit name;
        choice = chooseAll (choose at.choice name) (schema.suffix or [ ]);
      }) (filter (name: name != "recurseForDerivations") (attrNames v));
      here = filter (x: goes schema x.choice) found;
      foreign = x: keys == "systems" && !(elem x.name systems);
      entered = filter (x: !(foreign x)) here;
      omitted = filter foreign here;
      names = map (x: x.name);
    in
    seq
      (say "names" {
        inherit (at) path;
        names = names entered;
        omitted = names omitted;
        others = if globs == [ ] then [ ] else names (filter (x: !(elem x here)) found);
        hits = unique (concatMap (x: x.choice.hits) found ++ concatMap (x: meant x.choice) omitted);
      })
      (
        each (
          x:
          let
            bounds = narrow at.bounds x.name;
            position = at.position ++ [ x.name ];
            below = at // {
              inherit position bounds;
              inherit (x) choice;
              path = at.path ++ [ x.name ];
            };
          in
          if bounds == null || elem position skip || at.list && !(schema ? of) then
            null
          else
            seq (announce below schema) (walk below schema (call v.${x.name}))
        ) entered
      );

  announce =
    at: schema:
    say "at" {
      inherit (at) path;
      wanted = at.choice.taken || schema ? of;
      alive = alive at.choice;
    };

  # Goes down to a root. As in Nix, a name that is no output of the flake may be
  # that of a package.
  lookUp =
    path:
    let
      go =
        v: here: rest:
        let
          set = call v;
        in
        if rest == [ ] then
          { inherit path; value = set; }
        else if isAttrs set && set ? ${head rest} then
          go set.${head rest} (here ++ [ (head rest) ]) (tail rest)
        else
          {
            missing = {
              path = here ++ [ (head rest) ];
              have = if isAttrs set then attrNames set else [ ];
            };
          };
    in
    go value base path;

  enter =
    at:
    let
      inherit (at) root;
      direct = lookUp root.path;
      candidates = [ direct ] ++ map lookUp (
        if flake && base == [ ] && root.required then
          [
            ([ "packages" currentSystem ] ++ root.path)
            ([ "legacyPackages" currentSystem ] ++ root.path)
          ]
        else
          [ ]
      );
      found = filter (c: c ? value) candidates;
      path = base ++ (head found).path;
      schema = schemaOf path;
      inherit (head found) value;
      choice = chooseAll everything (path ++ schema.suffix or [ ]);
    in
    if (chooseAll everything (base ++ root.path)).excluded then
      say "left" (chooseAll everything (base ++ root.path)).hits
    else if !root.required && hopeless (chooseAll everything (base ++ root.path)) then
      null
    else if found == [ ] then
      (if root.required then say "missing" direct.missing else null)
    else
      seq
        (say "found" {
          inherit path;
          inherit (choice) hits;
          wanted = true;
          alive = alive choice;
        })
        (
          if path != [ ] && !(goes schema choice) then
            null
          else if !at.list && root.required && !(schema ? of) && isFunction value && needs value != [ ] then
            say "needs" (needs value)
          else
            walk (at // { inherit path choice; }) schema value
        );

  walkRoots =
    list: bounds:
    each (
      n:
      let
        root = elemAt roots n;
        here = narrow bounds n;
        position = [ n ];
      in
      if here == null || elem position skip then
        null
      else
        seq
          (say "root" {
            inherit n;
            path = base ++ root.path;
          })
          (enter {
            inherit root position list;
            bounds = here;
          })
    ) (genList (n: n) (length roots));
in
# A file that can't be evaluated at all ends the walk before it begins.
seq (if flake then null else value) (
  seq (
    if list then
      seq
        (walkRoots true {
          from =
            if listed == null then
              null
            else
              {
                path = listed;
                after = true;
              };
          until = null;
        })
        (say "listed" null)
    else
      null
  ) (walkRoots false { inherit from until; })
)
