# Walks through a value and reports each target on the way, by traces.
#
# A trace is a line "NONCE EVENT JSON". The nonce is new for each evaluator, so that evaluated
# code cannot forge one. A target is announced before any of it is evaluated (at), then named,
# then described (target) or refused. So if an evaluator dies, the target that was announced
# last is the cause, and the next evaluator continues after it. Attributes that are left out
# are not announced.
#
# The order of the walk is always the same. So a position, the number of a root and the path
# from there, [ N NAME … ], marks a point of the walk, and two positions bound a part of it.
#
# Other events:
#
#   root, found      a root is entered, and found
#   names, omitted, others, unnameable
#                    the names in a set, in parts, before it is entered
#   entered          a set is entered
#   listed           all sets are listed that the schema of flakes knows
#   missing          a requested attribute does not exist; near: names of packages like it
#   needs            a file is a function that needs arguments
#   unavailable      the position of a package whose meta says that it is unavailable, before
#                    its drvPath throws the reason
#   closed           a set that was requested, or is in one, is not entered
#   passed, failed   an attribute is no target, or an invalid one
#   about, meta      parts of a target whose evaluation may fail
#   done             the end: without this event, the evaluator has not finished
#
# A throw or a failed assertion does not end the evaluator: the attribute is announced as
# thrown, and the walk continues. tryEval drops the message. Therefore the value of the walk is
# a list that has, for each thrown attribute in this order, the nonce and the failing walk
# again. `nix eval` prints an error within a list in place of the item: [ "NONCE" «error: …» … ].
# The event again comes before each of them. If Nix ends with the first error instead, its
# message is that of the first attribute.
#
# No line is longer than 1 MiB, and all lines are UTF-8, because newer versions of Nix end at
# anything else in JSON, which tryEval does not catch.
text: # text.nix
{
  nonce,
  systems, # the wanted ones
  currentSystem,
  base, # path of the value
  roots, # [ { path = [ … ]; required = bool; outputs = null or [ … ]; } ]: paths to walk below
  #        the value, and the wanted outputs of their targets
  flake, # whether the value is (part of) the outputs of a flake
  host, # path of the target below a NixOS configuration
  args, # for functions
  globs, # [ { n = N; exclude = bool; rest = [ SEGMENT … ]; } ]; a SEGMENT is "**" or the
  #        list of pieces between which anything may be
  meta, # whether to report the whole meta of packages
  list, # whether to list first
  listed, # null, or the position of the set that was listed last
  from, # null, or { path = POSITION; after = bool; }: begin there, or after it
  until, # null, or the position to end before
  skip, # positions that are known to kill an evaluator
  only, # null, or the positions to walk to as nested sets: { "N" = { NAME = { }; }; }
  catch, # whether to continue after a throw
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
    getContext
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
    partition
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
  inherit (text)
    badText
    clean
    first
    kindOf
    longest
    shorten
    words
    ;

  say = event: data: trace "${nonce} ${event} ${toJSON data}" null;

  each = f: foldl' (_: x: seq (f x) null) null;

  # Walks to a position, or reports that it has thrown. Returns the walks to repeat for their
  # messages.
  attempt =
    list: walk:
    let
      tried = tryEval walk;
      thrown = if tried.value == null then [ ] else tried.value;
    in
    if !catch then
      seq walk [ ]
    else if tried.success then
      thrown
    else if list then
      [ ] # it throws again when it is walked to
    else
      seq (say "thrown" null) [ walk ];

  # Reports a list in parts.
  sayAll =
    event: list:
    let
      part = 100;
      count = length list;
      from = n: genList (i: elemAt list (n * part + i)) (if count - n * part < part then count - n * part else part);
    in
    each (n: say event (from n)) (genList (n: n) ((count + part - 1) / part));

  isDerivation = v: isAttrs v && v.type or null == "derivation";

  badName = badText "its name" longest;

  # ---- Functions ------------------------------------------------------------

  # Calls functions as `nix-build FILE --arg …` does: a function of a set with the arguments
  # that it names, or with all if it takes any, unless it needs others. In a flake, Nix calls
  # none.
  call = v: if !flake && isFunction v && takesSet v && needs v == [ ] then v (arguments v) else v;
  needs = v: filter (name: !(functionArgs v).${name} && !(args ? ${name})) (attrNames (functionArgs v));
  arguments = v: if takesAny v then args else intersectAttrs (functionArgs v) args;

  # Only the XML of a function tells `x:` from `{ }:` from `{ ... }:`.
  pattern = "<?xml version='1.0' encoding='utf-8'?>\n<expr>\n  <function>\n    <attrspat";
  startsWith = start: s: substring 0 (stringLength start) s == start;
  takesSet = v: startsWith pattern (toXML v);
  takesAny = v: startsWith (pattern + " ellipsis=\"1\"") (toXML v);

  # ---- Globs ----------------------------------------------------------------

  drop = n: s: substring n (stringLength s) s;

  # Whether a name consists of the pieces in this order, with anything between them.
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

  # A choice is the rest of the globs on the way down to a path. A glob covers an attribute
  # that it matches and all below.
  everything = {
    taken = !(any (g: !g.exclude) globs);
    excluded = false;
    hits = [ ]; # numbers of the globs that match here
    inherit globs;
  };
  choose =
    choice: name:
    let
      # "**" may match no name: then the segments after it count.
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

  # Include globs that may match something below; the numbers of all such globs; the numbers of
  # those that are likely to.
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

  # The outputs of a flake that are known. A schema describes the values at a path.
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
    named = true; # report a value that is no derivation
  };
  check = item // {
    strict = true; # it has to be a derivation, as for `nix flake check`
  };
  asked = {
    recurse = true;
    named = true;
  };
  deep = {
    deep = true;
    named = true;
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
    legacyPackages = perSystem (every (item // { named = false; }));
    checks = perSystem (every check);
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

  # All fields are checked before they are reported, so that an invalid target is only its own
  # failure.
  describe =
    root: path: holder: v:
    let
      system = v.system or "";
      odd = first [
        (badText "its name" longest (v.name or ""))
        (if system == "" then "it has no system" else badText "its system" longest system)
      ];
      meta = metaOf v;
      reason = refusal meta system;
      wanted = wantedOutputs root v;
    in
    if !(isDerivation v) then
      say "failed" "it is ${kindOf v}, not a derivation"
    else if odd != null then
      say "failed" odd
    else
      seq
        (say "named" {
          inherit path system;
          name = v.name or "";
        })
        (
          if reason != null then
            seq (say "refused" reason) (tellMeta holder v)
          else
            seq (if isAvailable meta then null else say "unavailable" (positionOf meta)) (
              if wanted ? problem then
                say "failed" wanted.problem
              else
                seq
                  (say "target" {
                    inherit (v) drvPath;
                    inherit system;
                    outputs = wanted.names;
                    outPaths = listToAttrs (
                      map (name: {
                        inherit name;
                        value = v.${name}.outPath or null;
                      }) wanted.names
                    );
                  })
                  (
                    seq (say "about" {
                      description = words (v.meta.description or holder.meta.description or null);
                      features = words (v.requiredSystemFeatures or null);
                      runner = words (v.meta.nixMatrix.runner or holder.meta.nixMatrix.runner or null);
                    }) (tellMeta holder v)
                  )
            )
        );

  # The outputs that are wanted of a derivation, or a problem with it. By default, as in Nix,
  # those that its meta names, else the first.
  wantedOutputs =
    root: v:
    let
      outputs = v.outputs or [ (v.outputName or "out") ];
      default = v.outputName or (head outputs);
      installed = v.meta.outputsToInstall or [ ];
      chosen = root.outputs != null || v.outputSpecified or false == true;
      names = unique (
        if root.outputs == [ "*" ] then
          outputs
        else if root.outputs != null then
          root.outputs
        else if chosen || installed == [ ] then
          [ default ]
        else
          installed
      );
      badList =
        what: list:
        if !(isList list) then
          "${what} is ${kindOf list}, not a list"
        else if length list > 200 then
          "${what} has more than 200 names"
        else
          first (map (badText "a name in ${what}" 211) list);
      has = name: elem name outputs && (name == default || v ? ${name});
      drvPath = v.drvPath or null;
      problem = first [
        (if v ? outputName then badText "its outputName" 211 v.outputName else null)
        (badList "its list of outputs" outputs)
        (if outputs == [ ] then "it has no output" else null)
        (if chosen then null else badList "its meta.outputsToInstall" installed)
        (first (
          map (name: if has name then null else "it has no output ${name}: it has ${commas outputs}") names
        ))
        (if drvPath == null then "it has no drvPath" else badText "its drvPath" longest drvPath)
        # Only derivation returns a path whose context is the path itself.
        (
          if getContext drvPath ? ${unsafeDiscardStringContext drvPath} then
            null
          else
            "its drvPath is a string that is not from a derivation"
        )
        (first (
          map (
            name:
            let
              outPath = v.${name}.outPath or null;
            in
            if outPath == null then null else badText "the outPath of its output ${name}" 300 outPath
          ) names
        ))
      ];
    in
    if problem != null then { inherit problem; } else { inherit names; };
  commas =
    list: foldl' (text: n: if n < 20 then "${text}, ${elemAt list n}" else "${text}, …") (head list) (
      genList (n: n + 1) (if length list < 21 then length list - 1 else 20)
    );

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
    if meta then
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

  # ---- Refused packages -----------------------------------------------------

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

  # ---- The walk -------------------------------------------------------------

  # The bounds as seen from a child; null if it is out of them.
  narrow =
    bounds: name:
    let
      inherit (bounds) from until only;
      first = from != null && name == head from.path;
      final = until != null && name == head until;
    in
    if
      from != null && name < head from.path
      || first && tail from.path == [ ] && from.after
      || until != null && head until < name
      || final && tail until == [ ]
      || only != null && !(only ? ${name})
    then
      null
    else
      {
        from = if first && tail from.path != [ ] then from // { path = tail from.path; } else null;
        until = if final then tail until else null;
        only = if only == null || only.${name} == { } then null else only.${name};
      };

  # at is the state of a walk: root, position, path as shown to the user, bounds, choice, and
  # whether only to list.
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
    else if schema.strict or false then
      (
        if at.choice.taken then
          say "failed" "it is ${kindOf v}, not a derivation, which `nix flake check` refuses too"
        else
          null
      )
    else if isAttrs v && schema ? deep then
      (if v.recurseForDerivations or true == false then null else children at deep null v)
    else if isAttrs v && (schema.recurse or false || v.recurseForDerivations or false == true) then
      children at anything null v
    else
      seq (if at.choice.taken && schema.named or false then say "passed" (kindOf v) else null) (
        if isAttrs v && at.root.required && length at.position <= 2 then
          say "closed" {
            inherit (at) path;
            names = firsts 20 (filter (name: badName name == null) (attrNames v));
          }
        else
          null
      );

  firsts = most: list: genList (elemAt list) (if length list < most then length list else most);

  children =
    at: schema: keys: v:
    let
      found = map (name: {
        inherit name;
        problem = badName name;
        choice = chooseAll (choose at.choice name) (schema.suffix or [ ]);
      }) (filter (name: name != "recurseForDerivations") (attrNames v));
      inherit (partition (x: goes schema x.choice) found) right wrong;
      foreign = x: keys == "systems" && !(elem x.name systems);
      native = filter (x: !(foreign x)) right;
      entered = filter (x: x.problem == null) native;
      unnameable = filter (x: x.problem != null && wants x) native;
      omitted = filter foreign right;
      wants = x: x.choice.taken || schema ? of;
      names = map (x: if x.problem == null then x.name else shorten longest x.name);
    in
    if !(isAttrs v) then
      say "failed" "it is ${kindOf v}, not a set"
    else if length at.position > 32 then
      say "failed" "it is more than 32 sets deep. If a set contains itself, end the walk there with recurseForDerivations = false"
    else
      seq
        (each ({ event, list }: sayAll event list) [
          {
            event = "names";
            list = names entered;
          }
          {
            event = "omitted";
            list = names omitted;
          }
          {
            event = "unnameable";
            list = map (x: {
              name = shorten longest x.name;
              inherit (x) problem;
            }) unnameable;
          }
          {
            event = "others";
            list = if globs == [ ] then [ ] else names wrong;
          }
        ])
        (
          seq
            (say "entered" {
              inherit (at) path;
              hits = unique (concatMap (x: x.choice.hits) found);
              perhaps = unique (concatMap (x: meant x.choice) omitted);
            })
            (
              concatMap (
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
                  [ ]
                else
                  seq (announce below schema) (attempt at.list (walk below schema (call v.${x.name})))
              ) entered
            )
        );

  announce =
    at: schema:
    say "at" {
      inherit (at) path;
      wanted = at.choice.taken || schema ? of;
      alive = alive at.choice;
    };

  # Follows the path of a root. As in Nix, a name that is no output of the flake may be that of
  # a package.
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
            missing = here ++ [ (head rest) ];
            have = filter (name: badName name == null) (if isAttrs set then attrNames set else [ ]);
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
      (
        if root.required then
          seq (sayAll "others" direct.have) (
            seq (sayAll "near" (concatMap (c: if length c.missing == 3 then c.have else [ ]) (tail candidates))) (
              say "missing" direct.missing
            )
          )
        else
          null
      )
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

  # As narrow, for the number of a root.
  narrowRoot =
    bounds: n:
    let
      here = narrow (bounds // { only = null; }) n;
      below = bounds.only.${toString n};
    in
    if here == null || bounds.only == null then
      here
    else if !(bounds.only ? ${toString n}) then
      null
    else
      here // { only = if below == { } then null else below; };

  walkRoots =
    list: bounds:
    concatMap (
      n:
      let
        root = elemAt roots n;
        here = narrowRoot bounds n;
        position = [ n ];
      in
      if here == null || elem position skip then
        [ ]
      else
        seq
          (say "root" {
            inherit n;
            path = base ++ root.path;
          })
          (
            attempt list (enter {
              inherit root position list;
              bounds = here;
            })
          )
    ) (genList (n: n) (length roots));
  thrown = walkRoots false { inherit from until only; };
in
# A file that cannot be evaluated at all ends the walk before it begins.
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
          only = null;
        })
        (say "listed" null)
    else
      null
  ) (seq thrown (seq (say "done" null) (concatMap (again: [ nonce (seq (say "again" null) again) ]) thrown)))
)
