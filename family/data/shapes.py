"""What made-up items look like: tables of parts by department (body plan), branch (structure) and extra.

A part is `role shape numbers`, in a square from -1 to 1 with y pointing down; later parts cover earlier ones.
Roles: body (patterned), dark, light, accent, glass. Shapes:
`box x y half_width half_height` · `disc x y radius [radius_y]` · `poly x y x y ...` ·
`line width x y x y ...` · `row x0 x1 y half_width half_height` (as many boxes as the category's count).
A star after the shape draws it once more, mirrored left to right.
"""

FORMS = {
    "Electronics": {
        "Computers": (
            "body box 0 -.25 .78 .55; glass box 0 -.27 .64 .4; dark poly -.78 .32 .78 .32 .98 .8 -.98 .8; "
            "light row -.6 .6 .47 .09 .06; light row -.68 .68 .65 .1 .06"
        ),
        "Phones": "body box 0 0 .5 .96; glass box 0 -.12 .4 .66; light row -.3 .3 .76 .06 .07",
        "Audio": ("body box 0 0 .6 .96; dark disc 0 .38 .44; light disc 0 .38 .17; dark disc 0 -.5 .26; accent row -.4 .4 -.86 .05 .05"),
        "Cameras": (
            "body box 0 .14 .96 .56; body box -.1 -.5 .36 .16; dark disc -.05 .14 .48; "
            "glass disc -.05 .14 .33; light disc -.18 0 .09; accent box .66 -.48 .14 .09; "
            "light row .55 .9 -.2 .06 .05"
        ),
        "Televisions": (
            "body box 0 -.2 .99 .62; glass box 0 -.22 .9 .51; dark box 0 .52 .08 .14; dark box 0 .7 .5 .07; accent row .4 .8 .35 .03 .03"
        ),
        "Game consoles": (
            "body poly -.6 -.42 .6 -.42 .92 -.1 .98 .6 .66 .64 .4 .26 -.4 .26 -.66 .64 -.98 .6 -.92 -.1; "
            "dark disc* .34 .06 .17; light box -.62 -.14 .06 .17; light box -.62 -.14 .17 .06; "
            "accent row .48 .8 -.14 .06 .06"
        ),
        "Appliances": (
            "body box 0 0 .78 .94; light box 0 -.74 .7 .14; dark disc 0 .14 .52; glass disc 0 .14 .38; "
            "accent row -.55 .1 -.74 .06 .06; dark box* .6 .96 .1 .05"
        ),
    },
    "Animals": {
        "Dogs": (
            "body box -.52 .55 .09 .4; body box -.28 .55 .08 .4; body box .22 .55 .08 .4; "
            "body box .44 .55 .09 .4; body line .12 -.6 -.05 -.85 -.3 -.9 -.55; body disc 0 .05 .68 .32; "
            "body poly .3 -.1 .62 .15 .75 -.3 .5 -.6; body disc .66 -.45 .28 .25; body box .9 -.38 .16 .11; "
            "dark disc 1.03 -.43 .06; dark poly .45 -.6 .62 -.6 .55 -.15 .4 -.2; dark disc .74 -.52 .05"
        ),
        "Cats": (
            "body line .11 -.45 .6 -.85 .55 -.9 .1 -.7 -.1; body disc -.1 .4 .48 .52; body box .2 .6 .1 .34; "
            "body box -.02 .62 .1 .32; body poly .0 -.62 .08 -1 .32 -.78; body poly .5 -.78 .74 -1 .78 -.6; "
            "body disc .38 -.45 .42 .36; light disc .24 -.5 .09; light disc .54 -.5 .09; "
            "dark disc .24 -.5 .04 .08; dark disc .54 -.5 .04 .08; accent poly .33 -.34 .45 -.34 .39 -.27; "
            "dark line .02 .5 -.26 .95 -.32; dark line .02 .5 -.22 .92 -.14"
        ),
        "Horses": (
            "body box -.55 .55 .07 .45; body box -.36 .55 .06 .45; body box .2 .55 .06 .45; "
            "body box .38 .55 .07 .45; dark line .1 -.6 -.1 -.82 .1 -.84 .5; body disc -.08 .02 .58 .27; "
            "body poly .1 -.05 .48 .1 .78 -.62 .52 -.85; "
            "body poly .5 -.92 .68 -.95 1.02 -.5 .92 -.36 .62 -.55; dark line .1 .5 -.9 .3 -.5 .12 -.2; "
            "body poly .5 -.85 .56 -1.08 .64 -.88; dark disc .72 -.72 .05"
        ),
        "Birds": (
            "dark line .05 -.05 .5 -.05 .95 .1 .95; dark line .05 .15 .5 .15 .95 .3 .95; "
            "body poly -.4 .1 -1 .35 -.95 .6 -.3 .5; body disc 0 .12 .55 .46; body disc .45 -.45 .3 .28; "
            "accent poly .7 -.52 1.02 -.38 .68 -.3; dark poly -.4 -.05 .2 -.05 .1 .35 -.5 .5; "
            "dark disc .52 -.5 .06"
        ),
        "Livestock": (
            "body box -.55 .62 .1 .32; body box -.3 .62 .1 .32; body box .2 .62 .1 .32; "
            "body box .42 .62 .1 .32; body box -.05 .02 .68 .42; accent disc -.15 .48 .2 .12; "
            "body disc .72 -.2 .28 .32; light disc .82 .02 .2 .13; light line .09 .52 -.42 .4 -.7 .52 -.9; "
            "light line .09 .82 -.46 .98 -.7 .88 -.92; dark line .06 -.72 -.3 -.86 .4; dark disc .74 -.28 .06"
        ),
        "Rodents and rabbits": (
            "body disc -.2 .35 .68 .52; light disc -.85 .35 .18; body disc .1 .82 .28 .14; "
            "body disc .48 -.52 .11 .42; body disc .22 -.5 .11 .42; accent disc .48 -.5 .05 .3; "
            "body disc .5 .02 .38 .34; dark disc .58 -.06 .07; accent disc .86 .08 .06; "
            "body disc -.5 .84 .3 .12"
        ),
        "Aquarium fish": (
            "body poly -.5 0 -1 -.5 -.82 0 -1 .5; body poly -.3 -.4 .1 -.85 .4 -.4; "
            "body poly -.1 .4 -.2 .8 .3 .4; body disc .15 0 .75 .48; light line .05 .48 -.38 .4 0 .48 .38; "
            "light disc .68 -.12 .12; dark disc .7 -.12 .06; accent poly .1 .05 -.25 .3 -.2 .02; "
            "dark line .03 .88 .12 .72 .18"
        ),
    },
    "Transport": {
        "Cars": (
            "glass poly -.55 -.12 -.32 -.52 .28 -.52 .58 -.12; "
            "body poly -.98 .02 -.62 -.14 .58 -.14 .98 .06 .98 .42 -.98 .42; body box -.02 -.33 .04 .2; "
            "dark disc* .56 .42 .26; light disc* .56 .42 .13; accent box .92 .14 .06 .07; "
            "dark row -.3 .3 .06 .05 .02"
        ),
        "Motorcycles": (
            "dark disc* .62 .42 .38; light disc* .62 .42 .22; dark line .1 .62 .42 .4 -.55 .2 -.7; "
            "body poly -.5 .1 .3 .4 .45 -.1 .3 -.32 -.1 -.3 -.2 -.05; "
            "dark poly -.8 -.2 -.15 -.12 -.2 .05 -.7 0; light disc .5 -.38 .14; light row -.35 .1 .45 .06 .1"
        ),
        "Bicycles": (
            "dark disc* .58 .4 .42; light disc* .58 .4 .35; "
            "body line .08 -.58 .4 -.3 -.25 .38 -.2 -.05 .42 -.58 .4; body line .08 -.34 -.4 -.05 .42; "
            "body line .08 .58 .4 .34 -.52; dark line .08 .14 -.6 .4 -.55 .5 -.68; "
            "dark box -.36 -.44 .18 .06; accent disc -.05 .42 .12; light disc* .58 .4 .07"
        ),
        "Trucks and vans": (
            "body box -.28 -.22 .68 .58; accent poly .42 -.45 .75 -.45 .98 -.05 .98 .4 .42 .4; "
            "glass poly .5 -.35 .72 -.35 .88 -.05 .5 -.05; dark box 0 .42 .98 .07; dark disc* .62 .52 .24; "
            "light disc* .62 .52 .11; light row -.8 .25 .2 .05 .08"
        ),
        "Caravans": (
            "body poly -.9 -.5 -.7 -.66 .6 -.66 .82 -.3 .82 .4 -.9 .4; glass box .4 -.25 .22 .2; "
            "light box -.1 -.02 .17 .42; glass row -.75 -.4 -.25 .12 .16; dark line .07 .8 .38 1.08 .46; "
            "dark disc .1 .44 .25; light disc .1 .44 .11"
        ),
        "Boats": (
            "dark line .06 -.05 .3 -.05 -1; light poly .02 -.95 .02 .12 .72 .12; "
            "accent poly -.12 -.8 -.12 .12 -.6 .12; body poly -.98 .28 .98 .22 .66 .76 -.74 .76; "
            "glass row -.6 .5 .44 .07 .07"
        ),
    },
    "Home and garden": {
        "Chairs": (
            "body box .02 -.45 .46 .48; light row -.3 .34 -.45 .05 .36; dark box* .44 .62 .06 .36; "
            "dark box* .3 .5 .05 .26; body poly -.56 .08 .56 .08 .66 .32 -.66 .32"
        ),
        "Tables": (
            "body poly -.7 -.42 .7 -.42 .98 -.12 -.98 -.12; dark box* .84 .4 .06 .52; "
            "dark box* .6 .2 .05 .34; accent row -.5 .5 -.05 .12 .06"
        ),
        "Sofas and beds": (
            "body box 0 -.3 .84 .36; light row -.66 .66 -.02 .2 .18; body box 0 .34 .92 .22; "
            "body box* .88 .14 .13 .4; dark box* .8 .66 .07 .1"
        ),
        "Cabinets": (
            "body box 0 0 .7 .94; light box 0 -.42 .58 .4; light box 0 .5 .58 .36; "
            "dark row -.45 .45 -.42 .05 .1; dark row -.45 .45 .5 .05 .1; dark box* .58 .98 .08 .05; "
            "dark box 0 .05 .66 .03"
        ),
        "Lamps": (
            "dark box 0 .15 .05 .72; dark disc 0 .9 .42 .1; body poly -.3 -.95 .3 -.95 .62 -.25 -.62 -.25; "
            "light disc 0 -.22 .5 .08; accent row -.3 .3 .0 .02 .1"
        ),
        "House plants": (
            "accent poly -.42 .35 .42 .35 .3 .96 -.3 .96; dark box 0 .36 .48 .08; body line .05 0 .3 0 -.4; "
            "body disc* .42 -.12 .34 .16; body disc* .3 -.5 .2 .34; body disc 0 -.68 .18 .34; "
            "light row -.25 .25 .65 .05 .16"
        ),
    },
    "Fashion": {
        "Tops": (
            "body poly -.36 -.72 .36 -.72 .95 -.3 .76 .08 .5 -.14 .5 .86 -.5 .86 -.5 -.14 -.76 .08 -.95 -.3; "
            "dark poly -.2 -.74 .2 -.74 0 -.48; accent row -.3 .3 .6 .05 .05"
        ),
        "Trousers": (
            "body poly -.5 -.92 .5 -.92 .64 .94 .14 .94 0 -.25 -.14 .94 -.64 .94; dark box 0 -.86 .5 .07; accent row -.4 .4 -.62 .06 .08"
        ),
        "Dresses": (
            "body poly -.24 -.86 .24 -.86 .3 -.1 .8 .9 -.8 .9 -.3 -.1; body line .08 -.2 -.8 -.26 -1; "
            "body line .08 .2 -.8 .26 -1; dark box 0 -.12 .3 .07; accent row -.5 .5 .7 .06 .08"
        ),
        "Shoes": (
            "body poly -.92 -.5 -.4 -.5 -.25 -.1 .5 .1 .95 .32 .95 .5 -.92 .5; dark box 0 .56 .97 .1; "
            "light row -.2 .35 .08 .03 .14; accent box -.78 -.1 .1 .3; dark disc -.66 -.5 .27 .07"
        ),
        "Bags": (
            "dark line .09 -.45 -.2 -.38 -.85 .38 -.85 .45 -.2; "
            "body poly -.72 -.25 .72 -.25 .92 .85 -.92 .85; light poly -.72 -.25 .72 -.25 .5 .25 -.5 .25; "
            "accent row -.3 .3 .24 .08 .08"
        ),
        "Hats": (
            "body poly -.5 .25 -.44 -.5 -.2 -.66 0 -.55 .2 -.66 .44 -.5 .5 .25; body disc 0 .34 .98 .2; "
            "dark box 0 .12 .5 .1; accent row -.3 .3 .12 .05 .07"
        ),
    },
    "Hobby": {
        "Guitars": (
            "dark box 0 -.5 .08 .46; body disc 0 .05 .34 .28; body disc 0 .52 .48 .42; dark disc 0 .3 .15; "
            "dark box 0 .7 .2 .05; accent row -.12 .12 -.94 .03 .08; light line .025 0 -.9 0 .68"
        ),
        "Rackets": (
            "dark box 0 .66 .07 .34; body disc 0 -.32 .5 .6; light disc 0 -.32 .4 .5; "
            "dark row -.3 .3 -.32 .012 .44; dark line .025 -.4 -.45 .4 -.45; "
            "dark line .025 -.4 -.15 .4 -.15; accent box 0 .86 .1 .12"
        ),
        "Books": (
            "light poly -.62 -.78 .72 -.88 .8 .74 -.54 .84; body poly -.74 -.84 .6 -.84 .6 .78 -.74 .78; "
            "dark box -.66 -.03 .08 .81; light box 0 -.35 .4 .16; accent row -.3 .4 .4 .05 .2"
        ),
        "Toys": (
            "body box* .3 .72 .13 .26; body box* .66 .1 .11 .34; body box 0 .15 .5 .4; "
            "light box 0 -.55 .34 .28; dark disc* .14 -.6 .08; accent row -.3 .3 .1 .07 .1; "
            "dark line .05 0 -.8 0 -1; accent disc 0 -.98 .08"
        ),
        "Medals and coins": (
            "accent poly -.42 -1 -.12 -1 .1 -.1 -.12 -.1; dark poly .42 -1 .12 -1 -.1 -.1 .12 -.1; "
            "body disc 0 .36 .58; light disc 0 .36 .42; body disc 0 .36 .36; dark row -.22 .22 .36 .04 .2"
        ),
    },
    "Property": {
        "Houses": (
            "body box 0 .38 .74 .5; dark poly -.95 -.1 0 -.85 .95 -.1; light box .42 .2 .14 .16; "
            "light box -.42 .2 .14 .16; accent box 0 .62 .14 .27; glass row -.5 .5 -.3 .07 .08"
        ),
        "Flats": (
            "body box 0 .02 .62 .92; glass row -.42 .42 -.68 .08 .11; glass row -.42 .42 -.34 .08 .11; "
            "glass row -.42 .42 0 .08 .11; glass row -.42 .42 .34 .08 .11; accent box 0 .76 .14 .18; "
            "dark box 0 -.92 .7 .06"
        ),
        "Garages": (
            "body box 0 .25 .92 .5; dark poly -1 -.22 -.8 -.46 .8 -.46 1 -.22; light box 0 .36 .6 .38; "
            "dark line .03 -.6 .2 .6 .2; dark line .03 -.6 .42 .6 .42; accent row -.3 .3 .64 .06 .04"
        ),
        "Holiday cabins": (
            "body poly 0 -.95 .95 .85 -.95 .85; dark line .12 -.98 .86 0 -.96 .98 .86; "
            "glass poly 0 -.5 .3 .12 -.3 .12; accent box 0 .56 .16 .29; light row -.6 .6 .56 .07 .1"
        ),
    },
}

# What most items of a department are shown with, behind them; an animal brings nothing.
COMMON = {
    "Electronics": "dark line .05 .3 .5 .95 .98 1.12 .75",
    "Transport": "dark box 0 .86 1.1 .06",
    "Home and garden": "light disc 0 .95 1.05 .14",
    "Fashion": "dark line .05 -.75 -.72 0 -.98 .75 -.72; dark line .05 0 -.98 .1 -1.12 0 -1.22",
    "Hobby": "light box .8 -.82 .24 .15; dark line .03 .6 -.72 .3 -.5",
    "Property": "light box 0 .93 1.15 .09; accent disc -1.02 .62 .14 .28",
}

# One or two of its department's extra parts mark a category below the branch.
EXTRAS = {
    "Electronics": (
        "dark line .07 .3 -.5 .62 -1.12",
        "accent box 0 .2 .86 .1",
        "light disc .45 -.5 .24",
        "dark line .09 -.45 -.7 -.45 -1.05 .45 -1.05 .45 -.7",
        "accent disc* .8 .8 .2",
        "dark line .07 -.7 .7 -1 .9 -.9 1.1 -.2 1.08",
    ),
    "Animals": (
        "accent poly .3 -.3 .58 .06 .46 .16 .2 -.18",
        "dark disc -.15 0 .3 .2",
        "dark line .16 -.5 0 -.95 -.55 -.7 -.95",
        "accent box -.1 -.2 .34 .12",
        "light disc .2 .35 .3 .16",
        "accent disc* .4 .95 .26 .1",
    ),
    "Transport": (
        "dark line .07 -.6 -.6 .35 -.6 .35 -.5 -.6 -.5",
        "accent box -.1 .22 .8 .08",
        "accent box -.1 -.74 .5 .15",
        "dark line .08 -.8 .1 -1.05 -.35 -.75 -.38",
        "light disc -.1 .14 .22",
        "accent poly -.75 -.4 -.75 -1.05 -.25 -.82",
    ),
    "Home and garden": (
        "accent box .1 -.1 .3 .17",
        "dark poly -.14 -.4 .14 -.4 .2 -.85 -.2 -.85",
        "dark disc* .75 1 .13",
        "light disc 0 1 .95 .1",
        "accent poly -.8 -.2 -.3 -.25 -.35 .6 -.75 .55",
        "light box .45 .3 .2 .2",
    ),
    "Fashion": (
        "dark box .26 .1 .17 .17",
        "accent box 0 .35 .56 .09",
        "light disc 0 -.1 .24",
        "accent disc* .3 -.75 .17",
        "dark line .05 0 -.7 0 .85",
        "light poly -.5 .88 .5 .88 .56 .62 -.56 .62",
    ),
    "Hobby": (
        "accent poly -.05 .5 -.4 .3 -.4 .75 .3 .3 .3 .75",
        "dark line .08 -.4 -.6 -.8 .1 -.4 .85",
        "light box 0 .2 .5 .1",
        "accent disc* .62 -.6 .2",
        "dark box 0 .98 .75 .07",
        "light disc .4 .6 .24",
    ),
    "Property": (
        "dark box .5 -.72 .1 .26",
        "accent line .07 -.6 -.5 -.6 -1.1 -.3 -1 -.6 -.85",
        "light row -.98 .98 .85 .05 .15",
        "accent disc -.9 .35 .22 .4",
        "dark box 0 .1 .5 .05",
        "accent poly .5 .6 1.05 .6 1.1 .95 .45 .95",
    ),
}

# One of these, at the middle of the item, marks a category at level five or six.
LABELS = (
    "light disc 0 .1 .24",
    "accent box 0 .1 .3 .13",
    "light poly 0 -.2 .3 .3 -.3 .3",
    "dark line .1 -.25 -.1 .25 .35",
    "accent poly -.28 .1 0 -.2 .28 .1 0 .4",
    "dark disc 0 .1 .2",
)

# Patterns of the body.
PATTERNS = ("plain", "stripes", "bands", "dots", "checks", "halves")
