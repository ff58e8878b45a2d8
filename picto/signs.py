"""Road-sign plates drawn as SVG, each in two styles that differ in shape, colour, lettering and pictograms.

Own drawings (MIT). Style "plain" has white triangles, thin rims and round lettering; style "bold" has yellow
diamonds, thick rims, angular lettering and solid figures. Every plate is drawn in a box of 100 × 100.
"""

from __future__ import annotations

from dataclasses import dataclass

STYLES = ("plain", "bold")

# Letters and digits as strokes in a box of 10 × 14: first round, then angular.
STROKES = {
    "plain": {
        "0": "M5 0C1.5 0 0 3 0 7S1.5 14 5 14 10 11 10 7 8.5 0 5 0Z",
        "3": "M1 1.5C3-.7 9-.5 9 3.5S5 6.8 4.5 6.8C7 6.8 10 7.5 10 10.3S6 15.5 .5 12.5",
        "5": "M9 0H2L1.2 6.2C4 4.8 10 5 10 9.5S4 15.5 .3 12.5",
        "8": "M5 6.6C2.5 6.6 1 5 1 3.3S2.5 0 5 0 9 1.6 9 3.3 7.5 6.6 5 6.6"
        "C2 6.6 0 8.2 0 10.3S2 14 5 14 10 12.4 10 10.3 8 6.6 5 6.6Z",
        "S": "M9.5 2C7-.8.8-.4.8 3.4.8 8.2 9.6 5.6 9.6 10.4 9.6 14.6 2.5 14.9.2 11.8",
        "T": "M0 0H10M5 0V14",
        "O": "M5 0C1.5 0 0 3 0 7S1.5 14 5 14 10 11 10 7 8.5 0 5 0Z",
        "P": "M1 14V0H5.5C11.5 0 11.5 8 5.5 8H1",
        "H": "M0 0V14M10 0V14M0 7H10",
    },
    "bold": {
        "0": "M2 0H8L10 2V12L8 14H2L0 12V2Z",
        "3": "M0 0H10L5.5 5.5H7L10 8V11L7 14H0",
        "5": "M10 0H1V6H7L10 8.5V11.5L7.5 14H0",
        "8": "M2 0H8L9.5 1.5V5L8 6.7H2L.5 5V1.5ZM2 6.7 0 8.5V12L2 14H8L10 12V8.5L8 6.7",
        "S": "M10 2 8 0H2L0 2V5L2 7H8L10 9V12L8 14H2L0 12",
        "T": "M0 0H10M5 0V14",
        "O": "M2 0H8L10 2V12L8 14H2L0 12V2Z",
        "P": "M0 14V0H8L10 2V6L8 8H0",
        "H": "M0 0V14M10 0V14M0 7H10",
    },
}


@dataclass(frozen=True)
class Style:
    name: str
    red: str
    blue: str
    ink: str
    paper: str

    @property
    def plain(self) -> bool:
        return self.name == "plain"


PALETTES = {
    "plain": Style("plain", "#d0121b", "#1560bd", "#111111", "#ffffff"),
    "bold": Style("bold", "#a8201a", "#0b3c78", "#231f20", "#f6efdc"),
}


def sign_svg(name: str, style: str) -> str:
    """The plate `name` in `style` ("plain" or "bold") as an SVG."""
    body = SIGNS[name](PALETTES[style])
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">{body}</svg>'


def lettering(s: Style, text: str, x: float, y: float, height: float, weight: float, colour: str) -> str:
    """`text` centred at (x, y)."""
    k = height / 14
    pitch = 15 if s.plain else 14.5
    left = x - k * (pitch * (len(text) - 1) + 10) / 2
    ends = "round" if s.plain else "butt"
    join = "round" if s.plain else "miter"
    return "".join(
        f'<path transform="translate({left + k * pitch * i:.2f} {y - height / 2:.2f}) scale({k:.3f})" '
        f'd="{STROKES[s.name][c]}" fill="none" stroke="{colour}" stroke-width="{weight / k:.2f}" '
        f'stroke-linecap="{ends}" stroke-linejoin="{join}"/>'
        for i, c in enumerate(text)
    )


def line(path: str, colour: str, width: float, ends: str = "round") -> str:
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linecap="{ends}" '
        f'stroke-linejoin="round"/>'
    )


def shape(path: str, fill: str, stroke: str = "none", width: float = 0) -> str:
    return (
        f'<path d="{path}" fill="{fill}" stroke="{stroke}" stroke-width="{width}" stroke-linejoin="round"/>'
    )


def disc(x: float, y: float, r: float, fill: str, stroke: str = "none", width: float = 0) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{r}" fill="{fill}" stroke="{stroke}" stroke-width="{width}"/>'


def moved(body: str, x: float, y: float, scale: float = 1, turn: float = 0) -> str:
    return f'<g transform="translate({x} {y}) scale({scale}) rotate({turn})">{body}</g>'


def prohibition(s: Style) -> str:
    width = 10 if s.plain else 14
    return disc(50, 50, 48, s.paper) + disc(50, 50, 47 - width / 2, s.paper, s.red, width)


def mandatory(s: Style) -> str:
    rim = "" if s.plain else disc(50, 50, 43, "none", s.paper, 3)
    return disc(50, 50, 48, s.blue) + rim


def board(s: Style) -> str:
    radius = 4 if s.plain else 14
    plate = f'<rect x="4" y="4" width="92" height="92" rx="{radius}" fill="{s.blue}"/>'
    if not s.plain:
        rim = 'width="82" height="82" rx="10" fill="none" stroke-width="3"'
        plate += f'<rect x="9" y="9" {rim} stroke="{s.paper}"/>'
    return plate


def warning(s: Style, pictogram: str) -> str:
    """A pictogram drawn in a box of 100 × 100 about its centre, inside the warning plate."""
    if s.plain:
        plate = shape("M50 8 95 88H5Z", s.paper, s.red, 9)
        return plate + moved(pictogram, 50, 60, 0.52)
    plate = shape("M50 3 97 50 50 97 3 50Z", "#f5b800", s.ink, 3) + shape(
        "M50 9 91 50 50 91 9 50Z", "none", s.ink, 3
    )
    return plate + moved(pictogram, 50, 50, 0.56)


def person(s: Style, stride: float = 14) -> str:
    """A walker about (0, 0), 90 high: a stick figure, or a solid one."""
    if s.plain:
        limbs = f"M0-24V10M0 8 {-stride} 44M0 8 {stride} 44M-16 6 0-18 18 2"
        return disc(2, -36, 9, s.ink) + line(limbs, s.ink, 9)
    limbs = f"M-4 12 {-stride - 2} 44H{-stride - 10}M5 12 {stride} 28 {stride - 2} 44H{stride + 6}"
    torso = "M-11-22Q0-28 11-22L13 8Q0 18-12 10Z"
    return (
        disc(0, -37, 11, s.ink) + shape(torso, s.ink) + line(limbs + "M-10-18-20 8M10-18 22-2 30 4", s.ink, 8)
    )


def car_front(s: Style, colour: str) -> str:
    """A car seen from behind about (0, 0), 40 wide."""
    roof = "M-13-4-9-16H9L13-4Z" if s.plain else "M-12-2-12-18H12V-2Z"
    body = "M-20-4H20V12H-20Z" if s.plain else "M-18-4H18L21 2V12H-21V2Z"
    wheels = "M-17 12h8v7h-8zM9 12h8v7h-8z"
    return shape(roof + body + wheels, colour, colour, 2)


def arrow(s: Style, path: str, tip: tuple[float, float], turn: float, colour: str, width: float = 11) -> str:
    """A stroke and a head at its tip; at turn 0 the head points up."""
    head = "M0-15 17 9H-17Z" if s.plain else "M0-17 22 5 11 12 0 1-11 12-22 5Z"
    return line(path, colour, width, "butt") + moved(shape(head, colour), *tip, 1, turn)


def _stop(s: Style) -> str:
    octagon = "M30 2H70L98 30V70L70 98H30L2 70V30Z"
    inner = "M32 7H68L93 32V68L68 93H32L7 68V32Z"
    rim = shape(inner, s.red, s.paper, 3) if s.plain else shape(inner, "none", s.paper, 6)
    height, weight = (20, 5) if s.plain else (21, 5.5)
    return shape(octagon, s.red) + rim + lettering(s, "STOP", 50, 50, height, weight, s.paper)


def _yield(s: Style) -> str:
    if s.plain:
        return shape("M6 13H94L50 90Z", s.paper, s.red, 10)
    return shape("M3 10H97L50 94Z", s.red, s.red, 4) + shape("M32 28H68L50 60Z", s.paper)


def _no_entry(s: Style) -> str:
    rim = disc(50, 50, 46, "none", s.paper, 3) if s.plain else disc(50, 50, 43, "none", s.paper, 4)
    bar = "M17 41H83V59H17Z" if s.plain else "M24 39H76V61H24Z"
    return disc(50, 50, 49, s.red) + rim + shape(bar, s.paper)


def _speed(text: str):
    def draw(s: Style) -> str:
        return prohibition(s) + lettering(s, text, 50, 50, 33, 7.5, s.ink)

    return draw


def _no_overtaking(s: Style) -> str:
    k = 0.86 if s.plain else 0.72
    cars = moved(car_front(s, s.red), 50 - 21 * k, 53, k) + moved(car_front(s, s.ink), 50 + 21 * k, 53, k)
    return prohibition(s) + cars


def _no_parking(s: Style) -> str:
    width = 9 if s.plain else 13
    bar = line("M20 20 80 80", s.red, width, "butt")
    letter = "" if s.plain else lettering(s, "P", 50, 50, 42, 8, s.paper)
    return disc(50, 50, 48, s.blue) + letter + bar + disc(50, 50, 48 - width / 2, "none", s.red, width)


def _parking(s: Style) -> str:
    return board(s) + lettering(s, "P", 50, 50, 58 if s.plain else 54, 12 if s.plain else 11, s.paper)


def _hospital(s: Style) -> str:
    return board(s) + lettering(s, "H", 50, 50, 56 if s.plain else 50, 12 if s.plain else 11, s.paper)


def _one_way(s: Style) -> str:
    ground, mark = (s.blue, s.paper) if s.plain else (s.ink, s.paper)
    plate = f'<rect x="2" y="27" width="96" height="46" rx="{3 if s.plain else 8}" fill="{ground}"/>'
    if s.plain:
        return plate + arrow(s, "M12 50H72", (74, 50), 90, mark, 12)
    return plate + shape("M9 40H62V31L92 50 62 69V60H9Z", mark)


def _dead_end(s: Style) -> str:
    width = 14 if s.plain else 11
    return board(s) + line("M50 86V36", s.paper, width, "butt") + shape("M24 22H76V38H24Z", s.red, s.paper, 3)


def _turn(side: int):
    def draw(s: Style) -> str:
        if s.plain:
            path = f"M{50 - side * 16} 74V56Q{50 - side * 16} 46 {50 - side * 6} 46H{50 + side * 16}"
            return mandatory(s) + arrow(s, path, (50 + side * 20, 46), 90 * side, s.paper)
        path = f"M{50 - side * 30} 50H{50 + side * 16}"
        return mandatory(s) + arrow(s, path, (50 + side * 17, 50), 90 * side, s.paper)

    return draw


def _straight(s: Style) -> str:
    return mandatory(s) + arrow(s, "M50 84V34", (50, 30), 0, s.paper, 12 if s.plain else 11)


def _roundabout(s: Style) -> str:
    r = 24
    head = moved(shape("M0-12 13 7H-13Z" if s.plain else "M0-13 15 3 0 0-15 3Z", s.paper), -4, -r, 1, 80)
    one = line(f"M{-r * 0.87:.1f} {r * 0.5:.1f}A{r} {r} 0 0 1 -6 {-r}", s.paper, 7, "butt") + head
    return mandatory(s) + "".join(moved(one, 50, 50, 1.1, 120 * i) for i in range(3))


def _bicycle(s: Style) -> str:
    weight = 4.5 if s.plain else 6
    wheels = disc(29, 60, 15, "none", s.paper, weight) + disc(71, 60, 15, "none", s.paper, weight)
    frame = "M29 60 40 38H63L71 60M40 38 50 60 63 38M50 60H29M36 32H45M63 38 61 29H70"
    return mandatory(s) + wheels + line(frame, s.paper, weight)


def _pedestrian_crossing(s: Style) -> str:
    stripes = line("M-38 48H38", s.ink, 7, "butt").replace("<path ", '<path stroke-dasharray="10 6" ')
    if s.plain:
        zebra = line("M24 76H76", s.ink, 7, "butt").replace("<path ", '<path stroke-dasharray="7 4" ')
        return board(s) + shape("M50 13 88 83H12Z", s.paper) + moved(person(s), 50, 55, 0.4) + zebra
    return warning(s, moved(person(s), 0, -6, 0.98) + moved(stripes, 0, 6))


def _priority_road(s: Style) -> str:
    if s.plain:
        return shape("M50 4 96 50 50 96 4 50Z", s.paper, s.ink, 3) + shape(
            "M50 21 79 50 50 79 21 50Z", "#ffc400"
        )
    outer = shape("M50 3 97 50 50 97 3 50Z", s.paper, "#8a8577", 1.5)
    return outer + shape("M50 15 85 50 50 85 15 50Z", "#f0a500", s.ink, 4)


def _traffic_lights(s: Style) -> str:
    lamps = (("#e01b1b", -30), ("#f5a300", 0), ("#17a13a", 30))
    if s.plain:
        return warning(s, "".join(disc(0, y - 2, 14, colour) for colour, y in lamps))
    case = '<rect x="-20" y="-50" width="40" height="100" rx="8" fill="#231f20"/>'
    return warning(s, case + "".join(disc(0, y, 11, colour) for colour, y in lamps))


def _road_works(s: Style) -> str:
    heap = shape("M8 46Q26 12 44 46Z", s.ink)
    if s.plain:
        digger = disc(-18, -38, 9, s.ink) + line(
            "M-20-24-10 8-30 44M-10 8-4 44M-18-20 6-6M-6-18 24 30", s.ink, 8
        )
        return warning(s, digger + heap)
    digger = disc(-16, -38, 10, s.ink) + shape("M-30-24-12-28 2 4-16 12Z", s.ink)
    tools = line("M-16 8-34 26-32 46M-6 6 0 26-6 46M-12-20 10 0M-4-22 22 32", s.ink, 8)
    return warning(s, digger + tools + shape("M6 46Q24 4 46 46Z", s.ink))


def _slippery(s: Style) -> str:
    car = moved(car_front(s, s.ink), 0, -24, 1.15, -8)
    tracks = "M-14 4C-34 18-2 30-22 48M14 4C-6 18 26 30 6 48"
    return warning(s, car + line(tracks, s.ink, 6 if s.plain else 8))


def _children(s: Style) -> str:
    return warning(s, moved(person(s, 16), -20, -2, 1.0) + moved(person(s, 18), 24, 12, 0.74))


def _railway_crossing(s: Style) -> str:
    """St Andrew's cross."""
    arms = "M8 26 92 74M92 26 8 74"
    if s.plain:
        return line(arms, s.red, 19, "butt") + line("M13 29 87 71M87 29 13 71", s.paper, 10, "butt")
    return (
        line(arms, s.ink, 21, "butt")
        + line("M11 28 89 72M89 28 11 72", s.paper, 15, "butt")
        + disc(50, 50, 5, s.red)
    )


SIGNS = {
    "stop": _stop,
    "yield": _yield,
    "no entry": _no_entry,
    "speed limit 30": _speed("30"),
    "speed limit 50": _speed("50"),
    "speed limit 80": _speed("80"),
    "no overtaking": _no_overtaking,
    "no parking": _no_parking,
    "parking": _parking,
    "hospital": _hospital,
    "one way": _one_way,
    "dead end": _dead_end,
    "turn left": _turn(-1),
    "turn right": _turn(1),
    "go straight": _straight,
    "roundabout": _roundabout,
    "bicycle lane": _bicycle,
    "pedestrian crossing": _pedestrian_crossing,
    "priority road": _priority_road,
    "traffic lights": _traffic_lights,
    "road works": _road_works,
    "slippery road": _slippery,
    "children": _children,
    "railway crossing": _railway_crossing,
}
