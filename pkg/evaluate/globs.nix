# Matches the globs of include and exclude with attribute paths, one name after another.
{ text, globs }: # globs: see evaluate.nix
let
  inherit (builtins)
    any
    concatMap
    elem
    filter
    foldl'
    head
    stringLength
    substring
    tail
    ;
  inherit (text) startsWith unique;

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
in
{
  inherit
    alive
    choose
    chooseAll
    everything
    goes
    hopeless
    meant
    ;
}
