# Walks through a value and reports each target on the way, by traces. The other files are parts
# of this program.
#
# A trace is a line "NONCE EVENT JSON". The nonce is new for each evaluator, so that evaluated
# code cannot forge one. A target is announced before any of it is evaluated (at), then named,
# then described (target) or refused, or skipped, perhaps before it is named. So if an evaluator dies, the target that was announced
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
parts: # the other files by their names
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
    any
    attrNames
    concatMap
    elem
    elemAt
    filter
    foldl'
    functionArgs
    genList
    head
    intersectAttrs
    isAttrs
    isFunction
    isList
    length
    partition
    seq
    tail
    toJSON
    toXML
    trace
    tryEval
    ;
  inherit (parts) text;
  inherit (text)
    badName
    isDerivation
    kindOf
    longest
    shorten
    startsWith
    unique
    ;
  inherit (parts.bounds) narrow narrowRoot;
  inherit (parts.globs { inherit text globs; })
    alive
    choose
    chooseAll
    everything
    goes
    hopeless
    meant
    ;
  inherit (parts.schemas { inherit flake host systems; }) below deep schemaOf;
  inherit
    (parts.targets {
      inherit text say;
      meta = parts.meta {
        inherit text say;
        wanted = meta;
      };
    })
    describe
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

  # ---- Functions ------------------------------------------------------------

  # Calls functions as `nix-build FILE --arg …` does: a function of a set with the arguments
  # that it names, or with all if it takes any, unless it needs others. In a flake, Nix calls
  # none.
  call = v: if !flake && isFunction v && takesSet v && needs v == [ ] then v (arguments v) else v;
  needs = v: filter (name: !(functionArgs v).${name} && !(args ? ${name})) (attrNames (functionArgs v));
  arguments = v: if takesAny v then args else intersectAttrs (functionArgs v) args;

  # Only the XML of a function tells `x:` from `{ }:` from `{ ... }:`.
  pattern = "<?xml version='1.0' encoding='utf-8'?>\n<expr>\n  <function>\n    <attrspat";
  takesSet = v: startsWith pattern (toXML v);
  takesAny = v: startsWith (pattern + " ellipsis=\"1\"") (toXML v);

  # ---- The walk -------------------------------------------------------------

  # at is the state of a walk: root, position, path as shown to the user, bounds, choice, and
  # whether only to list.
  walk =
    at: schema: v:
    if schema ? otherwise && !(fits schema v) then
      walk at schema.otherwise v
    else if schema ? omitted then
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
      (if v.recurseForDerivations or true == false then null else children at (_: deep) null v)
    else if isAttrs v && (schema.recurse or false || v.recurseForDerivations or false == true) then
      children at below null v
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

  # Whether a value is a set, and has the names that its schema is about.
  fits =
    schema: v:
    isAttrs v && !(isDerivation v) && (!(isList schema.keys or null) || any (name: v ? ${name}) schema.keys);

  firsts = most: list: genList (elemAt list) (if length list < most then length list else most);

  children =
    at: of: keys: v:
    let
      found = map (name: rec {
        inherit name;
        problem = badName name;
        schema = of name;
        choice = chooseAll (choose at.choice name) (schema.suffix or [ ]);
      }) (filter (name: name != "recurseForDerivations" && (!(isList keys) || elem name keys)) (attrNames v));
      inherit (partition (x: goes x.schema x.choice) found) right wrong;
      foreign = x: keys == "systems" && !(elem x.name systems);
      native = filter (x: !(foreign x)) right;
      entered = filter (x: x.problem == null) native;
      unnameable = filter (x: x.problem != null && wants x) native;
      omitted = filter foreign right;
      wants = x: x.choice.taken || expected x.schema;
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
                  here = at // {
                    inherit position bounds;
                    inherit (x) choice;
                    path = at.path ++ [ x.name ];
                  };
                in
                if bounds == null || elem position skip || at.list && !(x.schema ? of) then
                  [ ]
                else
                  seq (announce here x.schema) (attempt at.list (walk here x.schema (call v.${x.name})))
              ) entered
            )
        );

  announce =
    at: schema:
    say "at" {
      inherit (at) path;
      suffix = schema.suffix or [ ];
      wanted = at.choice.taken || expected schema;
      alive = alive at.choice;
    };

  # Whether there is a set, if anything.
  expected = schema: schema ? of && !(schema ? otherwise);

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
          shadowed = length found > 1; # Nix takes another one for this path
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
