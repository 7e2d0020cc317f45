"""Sentences that imply an emotion without its name, written for this project, all of them for training.

Who wrote them had seen the sentences of `sentences.HELD_OUT`, and kept away from what those are about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IMPLIED"]

IMPLIED: Final[Mapping[str, str]] = {
    "joy": """
the sea was warm and we swam all afternoon
my best friend is back in town after three years
i finally paid off the last of my debt
we sang in the car the whole way home
the kids built a snowman and came in with red cheeks
the garden is full of flowers this morning
i woke up and the pain was gone
grandma baked her apple cake just for me
they let me hold the new puppy
my sister called to say that she is moving next door
our little cafe opens tomorrow and everyone helped
the test came back clean
i got a letter from an old friend
the whole street came out to celebrate
i kissed her under the stars
we have a home of our own now
dad is back on his feet again
my plants are growing like never before
what a beautiful morning to be alive
the baby smiled at me for the first time
i had the loveliest evening with you
holidays start on friday
they named their daughter after me
we laughed and hugged at the airport
my book is going to be printed
life is good these days
i could hug the whole world
my boss gave me a raise
i am home at last
the surgery went well and she is awake
we made it through and we are together
the choir sang and everybody was beaming
best weekend in years
my students all got through the final
i sat by the lake and felt so at peace
""",
    "determination": """
i am not going to let this beat me
whatever it takes we will finish the bridge
i promised her and i will keep my word
we keep rowing until we see land
i am staying in this fight
tomorrow i start again from the beginning
they said it was impossible so i will show them
no excuses i am going to do it
if it takes ten years i will learn it
i have made up my mind
we stick to the plan and we push through
i want to become a doctor and nothing will change that
i'm going back out there to win it
we hope to be done by spring and we will be
my knee hurts but i am crossing that line
i will work twice as hard as last year
we can still turn this around
you can count on me to see it through
i am saving every cent until i have it
let's roll up our sleeves and get to work
i won't back down
we will rebuild every single house
i am going to prove them wrong
next season will be ours
i refuse to quit
they can close the door i will come in through the window
i have set my goal and i am going for it
we stand together until they listen
this is hard but i'm getting it done
i intend to be the first in my family to graduate
one more mile one more mile
i'm going to get better
we hold the line
i will speak up even if my voice shakes
he keeps practising the same bar until it is right
""",
    "empathic_pain": """
his mother does not recognise him any more
they found the puppy frozen by the road
the whole village was washed away
my brother was killed at the front
the orphans sleep on the cold floor
he was beaten every night as a child
grandpa is fading and there is nothing we can do
the widow still sets the table for two
she begged them not to take her son
i held her hand until she stopped breathing
my uncle drank himself to death
the little girl asked when daddy would wake up
she is seven and has to go through chemo
he lost both his legs in the crash
our neighbour took his own life
the miners never came up again
i can't stop thinking about those poor families
the refugees drowned before the boat came
they are going hungry so that the kids can eat
i wish i had been there for him before the end
her husband left her with three kids and no money
the boy is bullied and eats alone
my heart goes out to everybody who was there
she had to identify her sister's body
the fire took all their photographs of him
he apologised to me on his deathbed
their only son went missing in the mountains
the old dog whimpered all night
it breaks me to see him like this
""",
    "excitement": """
the doors open in ten minutes
we are boarding right now
i got the role and rehearsals begin today
three two one go
guess what we are getting a puppy this weekend
the countdown has begun
i am shaking they are about to announce the winner
this ride is going to be wild
i can't sit still the parcel comes today
we fly out at dawn and i have packed already
oh wow it is moving it is really moving
the band walks on in a moment
look look there is a whale
i have waited all year for this
they are going to draw our number
we are going to see the northern lights tonight
the trailer is out and it looks unreal
hold on tight here comes the drop
they picked me for the mission
i'm on my way to meet him at last
whoa did you feel that speed
my hands are trembling this is it
it's match point
only an hour left until the reveal
the crowd is roaring and the lights go down
we are going on the road for a whole month
next week i start at nasa
yes yes yes it is happening
he is running he is through he scores
i've been dreaming of this trip since i was six
the ship leaves port tonight and we are on it
wait till you see what is in the box
my pulse is racing we are up next
the finale airs tonight
they just said that we are live
come quick it is about to hatch
""",
    "admiration": """
she learned to walk again in six months
he never once raised his voice in forty years of teaching
what a voice the room fell silent
she runs the whole clinic and still knows every name
they crossed the ocean in a boat they had built
at fifteen he wrote a symphony
she told the truth when it cost her everything
you handled that with such grace
he ran into the burning house twice
the firefighters worked for thirty hours without sleep
she speaks and everybody wants to be better
my mother worked three jobs and never complained
he solved in a minute what took us a week
that dive was flawless
your patience with those children is something else
she designed the entire bridge at twenty six
these nurses are the backbone of the country
they planted a forest by hand
he gave up a career to look after his brother
her essay is one of the finest i have read
that goalkeeper is on another level
you always know what to say
she has done more for this town than anyone
every stitch is perfect
he thanked each worker by name
the craftsmanship is out of this world
you stayed calm while we all panicked
she beat the champion with a broken wrist
i look at what you have done and take off my hat
his students would follow him anywhere
a masterclass from start to end
she is blind and climbed the highest peak
well played that was clever
you make it look so easy
""",
    "amusement": """
the dog sneezed and scared himself
my phone went off in the library and it was the chicken dance
the baby burped in the middle of the speech
he sat on the cake
our cat fights the vacuum cleaner every day
i called my boss darling by accident
the squirrel stole my sandwich and stared at me
his wig blew off on live television
grandma thinks the emoji is a hamster
they pranked the teacher with a rubber chicken
my son asked the policeman if he is a lego
i pushed a door that says pull for a full minute
the duck chased him around the pond
he practised his speech to a cactus
the penguin slipped and took down three others
dad fell asleep and snored through the concert
we were rolling on the floor
he wore the dress to win a bet
the robot poured coffee on the mayor
my uncle tells the one about the frog every time
she sent the love note to the whole company
the toddler put pasta on the dog's head
that meme got me good
he tripped over nothing and bowed
the goose followed her into the bank
i can't breathe his face when the balloon popped
they wrote happy birthday steve and his name is paul
the llama spat at the prince
he tried to pay with a banana
our teacher sneezed and his teeth flew out
the monkey wore sunglasses and would not give them back
she answered the door in a dinosaur suit
he googled how to google
my little brother got stuck in the cat flap
""",
}
